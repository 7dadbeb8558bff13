-- migrate:up
-- What the finance desk pages through, in the order it shows it: a page costs the same wherever it begins.
CREATE INDEX exception_case_newest ON anomaly.exception_case (last_day DESC, case_id);
CREATE INDEX exception_case_undecided ON anomaly.exception_case (last_day DESC, case_id) WHERE state IN ('open', 'assigned');
CREATE INDEX exception_case_by_state ON anomaly.exception_case (state, last_day DESC, case_id);
CREATE INDEX exception_case_by_kind ON anomaly.exception_case (kind, last_day DESC, case_id);
CREATE INDEX exception_case_by_point ON anomaly.exception_case (service_point_id, last_day DESC, case_id);
CREATE INDEX exception_case_by_assignee ON anomaly.exception_case (assigned_to, last_day DESC, case_id) WHERE assigned_to IS NOT NULL;
-- One case shows its flags by day; without this each look reads every flag there is.
CREATE INDEX flag_by_case ON anomaly.flag (case_id, billing_day) WHERE case_id IS NOT NULL;
CREATE INDEX dead_letter_oldest ON raw.dead_letter (first_seen, dead_letter_key);
CREATE INDEX dead_letter_unsettled ON raw.dead_letter (first_seen, dead_letter_key) WHERE status IN ('open', 'corrected');
CREATE INDEX dead_letter_by_head_end ON raw.dead_letter (head_end, first_seen, dead_letter_key);
CREATE INDEX dead_letter_by_reason ON raw.dead_letter USING gin (reasons jsonb_path_ops);
-- A key is given by its first digits.
CREATE INDEX dead_letter_by_prefix ON raw.dead_letter (encode(dead_letter_key, 'hex') text_pattern_ops);
CREATE INDEX adjustment_newest ON billing.adjustment (requested_at DESC, adjustment_id DESC);
CREATE INDEX adjustment_by_status ON billing.adjustment (status, requested_at DESC, adjustment_id DESC);
CREATE INDEX statement_newest ON billing.statement (issued_at DESC, statement_id DESC);
CREATE INDEX statement_by_account ON billing.statement (account_id, issued_at DESC, statement_id DESC);

-- migrate:down
DROP INDEX anomaly.exception_case_newest, anomaly.exception_case_undecided, anomaly.exception_case_by_state, anomaly.exception_case_by_kind,
    anomaly.exception_case_by_point, anomaly.exception_case_by_assignee, anomaly.flag_by_case, raw.dead_letter_oldest, raw.dead_letter_unsettled,
    raw.dead_letter_by_head_end, raw.dead_letter_by_reason, raw.dead_letter_by_prefix, billing.adjustment_newest, billing.adjustment_by_status,
    billing.statement_newest, billing.statement_by_account;
