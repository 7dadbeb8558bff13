-- migrate:up
-- Validated days, and every version of them that was replaced.
CREATE SCHEMA vee;
COMMENT ON SCHEMA vee IS 'Validated, estimated and edited usage; every replacement keeps what it replaced.';

CREATE TABLE vee.interval_day (
    starts_at timestamptz NOT NULL,
    total_micro bigint NOT NULL,
    register_difference_micro bigint,
    unscaled_micro bigint NOT NULL,
    row_flags bigint NOT NULL,
    billing_day date NOT NULL,
    version integer NOT NULL DEFAULT 1 CHECK (version > 0),
    rules_version integer NOT NULL,
    first_slot smallint NOT NULL,
    expected smallint NOT NULL,
    actual smallint NOT NULL,
    estimated smallint NOT NULL,
    missing smallint NOT NULL,
    interval_minutes smallint NOT NULL,
    slots smallint NOT NULL,
    scale smallint NOT NULL,
    quality smallint NOT NULL,
    billed boolean NOT NULL,
    locked boolean NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    unit text NOT NULL,
    flow text NOT NULL,
    head_end text NOT NULL,
    account_id text COLLATE "C",
    tariff_id text COLLATE "C",
    cycle_id text COLLATE "C",
    input_hash bytea NOT NULL CHECK (length(input_hash) = 32),
    content_hash bytea NOT NULL CHECK (length(content_hash) = 32),
    notes text,
    flags integer[],
    values integer[],
    wide_values bigint[],
    qualities smallint[],
    PRIMARY KEY (billing_day, service_point_id, meter_id, channel),
    CHECK (actual + estimated + missing = expected AND expected BETWEEN 0 AND slots),
    CHECK (coalesce(array_length(values, 1), 0) + coalesce(array_length(wide_values, 1), 0) = slots)
) PARTITION BY RANGE (billing_day);
COMMENT ON TABLE vee.interval_day IS 'Day vectors: the validated intervals of one meter''s channel at one service point on a billing day. A service point whose meter was exchanged has two rows; their sum is its usage.';
COMMENT ON COLUMN vee.interval_day.starts_at IS 'UTC instant at which the billing day, and so slot 1, begins.';
COMMENT ON COLUMN vee.interval_day.total_micro IS 'Exact sum of the row''s values, in millionths of the unit.';
COMMENT ON COLUMN vee.interval_day.register_difference_micro IS 'What the register says was used in the row''s slots, in millionths of the unit; null where no reads enclose them.';
COMMENT ON COLUMN vee.interval_day.unscaled_micro IS 'Sum of our estimates before they were scaled to the register; 0 where nothing was estimated.';
COMMENT ON COLUMN vee.interval_day.row_flags IS 'Bits of the row rules that hit (vee.rule, scope row).';
COMMENT ON COLUMN vee.interval_day.billing_day IS 'Local civil day that holds the start of every interval in the row.';
COMMENT ON COLUMN vee.interval_day.version IS 'Number of this version, from 1; earlier ones are in vee.interval_day_version.';
COMMENT ON COLUMN vee.interval_day.rules_version IS 'Version of the thresholds it was validated under.';
COMMENT ON COLUMN vee.interval_day.first_slot IS 'First slot (from 0) the meter answers for: above 0 after an exchange within the day.';
COMMENT ON COLUMN vee.interval_day.expected IS 'Slots the meter answers for.';
COMMENT ON COLUMN vee.interval_day.actual IS 'Slots with an actual value.';
COMMENT ON COLUMN vee.interval_day.estimated IS 'Slots with an estimate, ours or the head-end''s.';
COMMENT ON COLUMN vee.interval_day.missing IS 'Slots that stay null.';
COMMENT ON COLUMN vee.interval_day.interval_minutes IS 'Length of an interval in minutes.';
COMMENT ON COLUMN vee.interval_day.slots IS 'Number of intervals in this billing day.';
COMMENT ON COLUMN vee.interval_day.scale IS 'Decimals of the stored integers: quantity = integer * 10^-scale units.';
COMMENT ON COLUMN vee.interval_day.quality IS 'Quality code shared by every present slot; codes above 32767 are stored less 65536.';
COMMENT ON COLUMN vee.interval_day.billed IS 'Whether the channel counts for the bill; a check or reactive channel may not.';
COMMENT ON COLUMN vee.interval_day.locked IS 'Its estimates are final: only actuals, registers or people replace them.';
COMMENT ON COLUMN vee.interval_day.service_point_id IS 'Service point it is usage of.';
COMMENT ON COLUMN vee.interval_day.meter_id IS 'Meter it was read from.';
COMMENT ON COLUMN vee.interval_day.channel IS 'Channel of the meter.';
COMMENT ON COLUMN vee.interval_day.unit IS 'Base unit.';
COMMENT ON COLUMN vee.interval_day.flow IS 'import, export, net or other.';
COMMENT ON COLUMN vee.interval_day.head_end IS 'Head-end of the meter.';
COMMENT ON COLUMN vee.interval_day.account_id IS 'Account that pays for the service point on the day; null is an exception.';
COMMENT ON COLUMN vee.interval_day.tariff_id IS 'Tariff in force on the day; null is an exception.';
COMMENT ON COLUMN vee.interval_day.cycle_id IS 'Billing cycle that holds the day; null is an exception.';
COMMENT ON COLUMN vee.interval_day.input_hash IS 'SHA-256 over what the row was made from: raw values and codes, its window, the register difference, the thresholds.';
COMMENT ON COLUMN vee.interval_day.content_hash IS 'SHA-256 over what was made of it: its leaf in the ledger.';
COMMENT ON COLUMN vee.interval_day.notes IS 'Days and anchors the estimates stand on.';
COMMENT ON COLUMN vee.interval_day.flags IS 'Bits of the interval rules that hit, by slot; null where none did.';
COMMENT ON COLUMN vee.interval_day.values IS 'Scaled integers by slot; -2147483648 where the slot is not expected or stays null. Null where wide_values holds them.';
COMMENT ON COLUMN vee.interval_day.wide_values IS 'The same where 32 bits are too few; -9223372036854775808 for none.';
COMMENT ON COLUMN vee.interval_day.qualities IS 'Quality code by slot, only where slots differ.';

CREATE TABLE vee.interval_day_version (
    LIKE vee.interval_day INCLUDING DEFAULTS INCLUDING COMMENTS,
    superseded_at timestamptz NOT NULL,
    superseded_by text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (billing_day, service_point_id, meter_id, channel, version)
);
COMMENT ON TABLE vee.interval_day_version IS 'Earlier versions of vee.interval_day, with when, by whom and why they were replaced.';
COMMENT ON COLUMN vee.interval_day_version.flow IS 'import, export or other.';
COMMENT ON COLUMN vee.interval_day_version.superseded_at IS 'When it was replaced, UTC.';
COMMENT ON COLUMN vee.interval_day_version.superseded_by IS 'Who replaced it: a person''s role name or the stage.';
COMMENT ON COLUMN vee.interval_day_version.reason IS 'Why: late actuals, register, re-estimation, rules, reference, withdrawn.';

CREATE TABLE vee.register_day (
    quantity_micro bigint,
    gap_seconds bigint NOT NULL,
    causes bigint NOT NULL,
    billing_day date NOT NULL,
    reads integer NOT NULL,
    closed boolean NOT NULL,
    broken boolean NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    unit text NOT NULL,
    usage_micro bigint,
    PRIMARY KEY (billing_day, service_point_id, meter_id, channel)
) PARTITION BY RANGE (billing_day);
COMMENT ON TABLE vee.register_day IS 'What each register says was used on a billing day, multiplier applied.';
COMMENT ON COLUMN vee.register_day.quantity_micro IS 'Consumption in millionths of the unit; null where no reads enclose the day or the register broke.';
COMMENT ON COLUMN vee.register_day.gap_seconds IS 'Distance of the reads around the day''s edges; 0 where reads stand on them, else the edge was prorated.';
COMMENT ON COLUMN vee.register_day.causes IS 'Bits 1 << step of the steps in the day: 1 normal, 2 rollover, 3 reverse flow, 4 read error, 5 decrease, 6 dials, 7 recovered.';
COMMENT ON COLUMN vee.register_day.billing_day IS 'The day.';
COMMENT ON COLUMN vee.register_day.reads IS 'Reads used in the day.';
COMMENT ON COLUMN vee.register_day.closed IS 'Whether a read closes the day.';
COMMENT ON COLUMN vee.register_day.broken IS 'Whether an unexplained decrease lies in the day.';
COMMENT ON COLUMN vee.register_day.service_point_id IS 'Service point.';
COMMENT ON COLUMN vee.register_day.meter_id IS 'Meter.';
COMMENT ON COLUMN vee.register_day.channel IS 'Register channel.';
COMMENT ON COLUMN vee.register_day.unit IS 'Base unit.';
COMMENT ON COLUMN vee.register_day.usage_micro IS 'What the day of a register-only meter was put at, estimates included, in millionths; null for registers beside intervals and where nothing is known.';

-- An exchange may put two kinds of meter, or two units, into one service point's day.
CREATE TABLE vee.daily_usage (
    quantity_micro bigint,
    estimated_micro bigint NOT NULL,
    row_flags bigint NOT NULL,
    billing_day date NOT NULL,
    slots_expected integer NOT NULL,
    actual integer NOT NULL,
    estimated integer NOT NULL,
    missing integer NOT NULL,
    meters smallint NOT NULL,
    quality smallint NOT NULL,
    exchange boolean NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    flow text NOT NULL,
    unit text NOT NULL,
    source text NOT NULL CHECK (source IN ('interval', 'register', 'mixed')),
    commodity text NOT NULL,
    customer_class text NOT NULL,
    account_id text COLLATE "C",
    tariff_id text COLLATE "C",
    cycle_id text COLLATE "C",
    register_micro bigint,
    PRIMARY KEY (billing_day, service_point_id, flow, unit),
    CHECK (actual + estimated + missing = slots_expected)
) PARTITION BY RANGE (billing_day);
-- Service points with several meters are few: validation looks for them in the usage of five weeks, to give each meter
-- its own history.
CREATE INDEX daily_usage_several ON vee.daily_usage (billing_day, service_point_id) WHERE meters > 1;
COMMENT ON TABLE vee.daily_usage IS 'Usage of a service point on a billing day, all its meters together: what baselines, flags and bills start from.';
COMMENT ON COLUMN vee.daily_usage.quantity_micro IS 'Usage in millionths of the unit; null where nothing is known.';
COMMENT ON COLUMN vee.daily_usage.estimated_micro IS 'The part of it that is estimated.';
COMMENT ON COLUMN vee.daily_usage.row_flags IS 'Row rule bits of all its meters.';
COMMENT ON COLUMN vee.daily_usage.billing_day IS 'The day.';
COMMENT ON COLUMN vee.daily_usage.slots_expected IS 'Slots expected of all its meters; 1 per register-only meter.';
COMMENT ON COLUMN vee.daily_usage.actual IS 'Slots with actual values.';
COMMENT ON COLUMN vee.daily_usage.estimated IS 'Slots with estimates.';
COMMENT ON COLUMN vee.daily_usage.missing IS 'Slots without a value.';
COMMENT ON COLUMN vee.daily_usage.meters IS 'Meters it is the sum of: 2 on the day of an exchange.';
COMMENT ON COLUMN vee.daily_usage.quality IS 'Quality code that ranks worst among its slots.';
COMMENT ON COLUMN vee.daily_usage.exchange IS 'Whether a meter was exchanged on the day.';
COMMENT ON COLUMN vee.daily_usage.service_point_id IS 'Service point.';
COMMENT ON COLUMN vee.daily_usage.flow IS 'import, export, net or other.';
COMMENT ON COLUMN vee.daily_usage.unit IS 'Base unit.';
COMMENT ON COLUMN vee.daily_usage.source IS 'interval: sum of validated intervals; register: register consumption shared over days; mixed: both, as after an exchange.';
COMMENT ON COLUMN vee.daily_usage.commodity IS 'electricity, water or gas.';
COMMENT ON COLUMN vee.daily_usage.customer_class IS 'Class of the service point on the day.';
COMMENT ON COLUMN vee.daily_usage.account_id IS 'Account that pays; null is an exception.';
COMMENT ON COLUMN vee.daily_usage.tariff_id IS 'Tariff in force; null is an exception.';
COMMENT ON COLUMN vee.daily_usage.cycle_id IS 'Billing cycle; null is an exception.';
COMMENT ON COLUMN vee.daily_usage.register_micro IS 'The part of a mixed day''s usage that registers alone make, in millionths of the unit; null elsewhere.';

-- Daily usage of the whole city, one row per day: what high/low checks, average daily loads and baselines read in bulk.
-- A month of 100,000 service points is 28 rows here and 2.8 million in vee.daily_usage, of which it is a copy made in
-- the same transaction.
CREATE TABLE vee.usage_keys (
    keys_hash bytea PRIMARY KEY CHECK (length(keys_hash) = 32),
    service_point_id text[] NOT NULL,
    flow text[] NOT NULL,
    unit text[] NOT NULL
);
COMMENT ON TABLE vee.usage_keys IS 'Lists of service points, flows and units that days of vee.usage_block share.';
COMMENT ON COLUMN vee.usage_keys.keys_hash IS 'SHA-256 of the list.';
COMMENT ON COLUMN vee.usage_keys.service_point_id IS 'Service points, sorted with flow and unit.';
COMMENT ON COLUMN vee.usage_keys.flow IS 'Flow of each.';
COMMENT ON COLUMN vee.usage_keys.unit IS 'Unit of each.';

CREATE TABLE vee.usage_block (
    billing_day date PRIMARY KEY,
    keys_hash bytea NOT NULL REFERENCES vee.usage_keys,
    quantity_micro bigint[] NOT NULL,
    state smallint[] NOT NULL
);
COMMENT ON TABLE vee.usage_block IS 'vee.daily_usage of one day as arrays in the order of its keys.';
COMMENT ON COLUMN vee.usage_block.billing_day IS 'The day.';
COMMENT ON COLUMN vee.usage_block.keys_hash IS 'Whose usage: vee.usage_keys.';
COMMENT ON COLUMN vee.usage_block.quantity_micro IS 'Usage in millionths of the unit; -9223372036854775808 where nothing is known.';
COMMENT ON COLUMN vee.usage_block.state IS 'Bit 0: wholly actual; bit 1: a forward estimate that waits for its register.';

-- The sum of a head-end's meters is the shape of its few largest: a whole-hour shift was lost in their noise. The mean
-- of each meter's own day shows it.
CREATE TABLE vee.group_day (
    billing_day date NOT NULL,
    head_end text NOT NULL,
    unit text NOT NULL,
    flow text NOT NULL,
    interval_minutes smallint NOT NULL,
    members integer NOT NULL,
    profile bigint[] NOT NULL,
    shape bigint[] NOT NULL DEFAULT '{}',
    shape_members integer NOT NULL DEFAULT 0,
    shifted_hours smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (billing_day, head_end, unit, flow, interval_minutes)
);
COMMENT ON TABLE vee.group_day IS 'Load shape of each head-end''s complete meters on a day, as it was read: what a shift by whole hours is told from.';
COMMENT ON COLUMN vee.group_day.billing_day IS 'The day.';
COMMENT ON COLUMN vee.group_day.head_end IS 'Head-end.';
COMMENT ON COLUMN vee.group_day.unit IS 'Base unit.';
COMMENT ON COLUMN vee.group_day.flow IS 'import, export, net or other.';
COMMENT ON COLUMN vee.group_day.interval_minutes IS 'Length of an interval in minutes.';
COMMENT ON COLUMN vee.group_day.members IS 'Complete channel-days summed.';
COMMENT ON COLUMN vee.group_day.profile IS 'Sum of their values by slot, in millionths of the unit.';
COMMENT ON COLUMN vee.group_day.shape IS 'Sum by slot of each member''s share of its own day, in millionths: every meter weighs the same, however large.';
COMMENT ON COLUMN vee.group_day.shape_members IS 'Members in the shape: those that used something and ran backward nowhere.';
COMMENT ON COLUMN vee.group_day.shifted_hours IS 'Whole hours by which the day lies late against the head-end''s history; 0 where it does not. Shifted days are no history.';

-- The action of a finding is what the utility's policy in force on the day says; a held bill waits until the data are
-- right or a person releases what was found.
CREATE TABLE vee.exception (
    billing_day date NOT NULL,
    kind text NOT NULL,
    service_point_id text COLLATE "C" NOT NULL,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    severity text NOT NULL CHECK (severity IN ('inform', 'warn', 'fail')),
    detail text NOT NULL,
    first_seen timestamptz NOT NULL,
    action text NOT NULL DEFAULT 'bill' CHECK (action IN ('hold', 'estimate', 'bill')),
    PRIMARY KEY (billing_day, kind, service_point_id, meter_id, channel)
);
CREATE INDEX exception_by_point ON vee.exception (service_point_id, kind, billing_day);
COMMENT ON TABLE vee.exception IS 'What keeps a day''s usage from being billed as it is: references that do not resolve, rows that failed validation. Derived anew with each validation of the day.';
COMMENT ON COLUMN vee.exception.billing_day IS 'The day affected.';
COMMENT ON COLUMN vee.exception.kind IS 'Reference exception kind or row rule code.';
COMMENT ON COLUMN vee.exception.service_point_id IS 'Service point, empty where none is known.';
COMMENT ON COLUMN vee.exception.meter_id IS 'Meter, empty where it concerns the whole service point.';
COMMENT ON COLUMN vee.exception.channel IS 'Channel, empty likewise.';
COMMENT ON COLUMN vee.exception.severity IS 'inform, warn or fail.';
COMMENT ON COLUMN vee.exception.detail IS 'What exactly.';
COMMENT ON COLUMN vee.exception.first_seen IS 'When it was first found, UTC.';
COMMENT ON COLUMN vee.exception.action IS 'What the policy in force on the day does: hold the bill, bill an estimate, or bill the value and say so.';

CREATE TABLE vee.rule (
    scope text NOT NULL CHECK (scope IN ('interval', 'row')),
    bit smallint NOT NULL,
    code text NOT NULL UNIQUE,
    severity text NOT NULL CHECK (severity IN ('inform', 'warn', 'fail')),
    source text NOT NULL,
    about text NOT NULL,
    PRIMARY KEY (scope, bit)
);
COMMENT ON TABLE vee.rule IS 'The published list of rules: what each bit of flags and row_flags means. Written from the code''s own list with each validated day.';
COMMENT ON COLUMN vee.rule.scope IS 'interval: bits of flags; row: bits of row_flags.';
COMMENT ON COLUMN vee.rule.bit IS 'Bit position.';
COMMENT ON COLUMN vee.rule.code IS 'Public name.';
COMMENT ON COLUMN vee.rule.severity IS 'Severity for reads as they first come.';
COMMENT ON COLUMN vee.rule.source IS 'Standard or product the rule is taken from.';
COMMENT ON COLUMN vee.rule.about IS 'What a hit means.';

-- A register read closes the days since the one before it, which were estimated until then, and asks to have them
-- validated again. The bills of the services it names wait for that.
CREATE TABLE vee.true_up (
    billing_day date NOT NULL,
    read_day date NOT NULL,
    evidence bytea NOT NULL CHECK (length(evidence) = 32),
    registers integer NOT NULL CHECK (registers > 0),
    requested_at timestamptz NOT NULL,
    done_at timestamptz,
    service_points text[] COLLATE "C",
    PRIMARY KEY (billing_day, read_day, evidence)
);
CREATE INDEX true_up_waiting ON vee.true_up (billing_day) WHERE done_at IS NULL;
COMMENT ON TABLE vee.true_up IS 'Requests to validate a day again because a register read of another day changed what it used. The same finding asks once.';
COMMENT ON COLUMN vee.true_up.billing_day IS 'The day to validate again.';
COMMENT ON COLUMN vee.true_up.read_day IS 'The day whose register reads ask for it.';
COMMENT ON COLUMN vee.true_up.evidence IS 'SHA-256 over the registers concerned and what they now say the day used.';
COMMENT ON COLUMN vee.true_up.registers IS 'How many registers say something new of the day.';
COMMENT ON COLUMN vee.true_up.requested_at IS 'When it was found, UTC.';
COMMENT ON COLUMN vee.true_up.done_at IS 'When a validation of the day that had begun after the request was written, UTC; null while it waits.';
COMMENT ON COLUMN vee.true_up.service_points IS 'Service points whose usage of the day will change; null where the request does not say (it then concerns everyone''s).';

-- Edits by people are kept apart from the reads, applied with every validation of the day, and never rewritten. Where
-- two people are asked for, an edit is proposed and then approved; it is taken back by a second fact.
CREATE TABLE vee.edit (
    edit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    billing_day date NOT NULL,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    interval_minutes smallint NOT NULL,
    first_slot smallint NOT NULL CHECK (first_slot >= 1),
    values bigint[] NOT NULL CHECK (array_length(values, 1) > 0),
    rules text[] NOT NULL,
    rules_version integer NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    edited_by text COLLATE "C" NOT NULL CHECK (edited_by <> ''),
    edited_at timestamptz NOT NULL,
    withdrawn_by text COLLATE "C",
    withdrawn_at timestamptz,
    proposed boolean NOT NULL DEFAULT false,
    approved_by text COLLATE "C",
    approved_at timestamptz,
    CHECK ((withdrawn_by IS NULL) = (withdrawn_at IS NULL)),
    CHECK ((approved_by IS NULL) = (approved_at IS NULL)),
    CHECK (approved_by IS NULL OR (proposed AND approved_by <> edited_by))
);
CREATE INDEX edit_by_day ON vee.edit (billing_day) WHERE withdrawn_at IS NULL;
COMMENT ON TABLE vee.edit IS 'Intervals a person has overridden. The raw read stays; the newest edit of a slot that was not withdrawn stands in the validated day.';
COMMENT ON COLUMN vee.edit.edit_id IS 'Number of the edit.';
COMMENT ON COLUMN vee.edit.billing_day IS 'The day edited.';
COMMENT ON COLUMN vee.edit.meter_id IS 'Meter.';
COMMENT ON COLUMN vee.edit.channel IS 'Channel.';
COMMENT ON COLUMN vee.edit.interval_minutes IS 'Length of an interval in minutes.';
COMMENT ON COLUMN vee.edit.first_slot IS 'First slot edited, from 1.';
COMMENT ON COLUMN vee.edit.values IS 'Millionths of the unit by slot from the first; -9223372036854775808: the read is refused and the slot estimated.';
COMMENT ON COLUMN vee.edit.rules IS 'Rules of the manual override set that hit without refusing the edit.';
COMMENT ON COLUMN vee.edit.rules_version IS 'Version of the thresholds it was judged under.';
COMMENT ON COLUMN vee.edit.reason IS 'Why, in the person''s words.';
COMMENT ON COLUMN vee.edit.edited_by IS 'Who.';
COMMENT ON COLUMN vee.edit.edited_at IS 'When, UTC.';
COMMENT ON COLUMN vee.edit.withdrawn_by IS 'Who took it back; null while it stands.';
COMMENT ON COLUMN vee.edit.withdrawn_at IS 'When, UTC.';
COMMENT ON COLUMN vee.edit.proposed IS 'Whether it stands only once another person approved it.';
COMMENT ON COLUMN vee.edit.approved_by IS 'Who approved it; null while it waits, and where nobody has to.';
COMMENT ON COLUMN vee.edit.approved_at IS 'When, UTC.';

CREATE TABLE vee.register_edit (
    edit_id bigint PRIMARY KEY DEFAULT nextval(pg_get_serial_sequence('vee.edit', 'edit_id')),
    read_at timestamptz NOT NULL,
    billing_day date NOT NULL,
    value bigint,
    meter_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    rules text[] NOT NULL,
    rules_version integer NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    edited_by text COLLATE "C" NOT NULL CHECK (edited_by <> ''),
    edited_at timestamptz NOT NULL,
    proposed boolean NOT NULL DEFAULT false,
    approved_by text COLLATE "C",
    approved_at timestamptz,
    withdrawn_by text COLLATE "C",
    withdrawn_at timestamptz,
    CHECK ((approved_by IS NULL) = (approved_at IS NULL)),
    CHECK (approved_by IS NULL OR (proposed AND approved_by <> edited_by)),
    CHECK ((withdrawn_by IS NULL) = (withdrawn_at IS NULL))
);
CREATE INDEX register_edit_by_day ON vee.register_edit (billing_day) WHERE withdrawn_at IS NULL;
COMMENT ON TABLE vee.register_edit IS 'Register reads a person has corrected, refused or added. The raw read stays; the newest edit of an instant that stands is what the dial is taken to have shown.';
COMMENT ON COLUMN vee.register_edit.edit_id IS 'Number of the edit, from the same row of numbers as vee.edit.';
COMMENT ON COLUMN vee.register_edit.read_at IS 'Instant of the read, UTC.';
COMMENT ON COLUMN vee.register_edit.billing_day IS 'Day the read belongs to.';
COMMENT ON COLUMN vee.register_edit.value IS 'What the dial showed, in millionths of the base unit; null: the read is refused.';
COMMENT ON COLUMN vee.register_edit.meter_id IS 'Meter.';
COMMENT ON COLUMN vee.register_edit.channel IS 'Register channel.';
COMMENT ON COLUMN vee.register_edit.rules IS 'Rules that hit without refusing the edit.';
COMMENT ON COLUMN vee.register_edit.rules_version IS 'Version of the thresholds it was judged under.';
COMMENT ON COLUMN vee.register_edit.reason IS 'Why, in the person''s words.';
COMMENT ON COLUMN vee.register_edit.edited_by IS 'Who.';
COMMENT ON COLUMN vee.register_edit.edited_at IS 'When, UTC.';
COMMENT ON COLUMN vee.register_edit.proposed IS 'Whether it stands only once another person approved it.';
COMMENT ON COLUMN vee.register_edit.approved_by IS 'Who approved it; null while it waits, and where nobody has to.';
COMMENT ON COLUMN vee.register_edit.approved_at IS 'When, UTC.';
COMMENT ON COLUMN vee.register_edit.withdrawn_by IS 'Who took it back; null while it stands.';
COMMENT ON COLUMN vee.register_edit.withdrawn_at IS 'When, UTC.';

CREATE VIEW vee.exception_span AS
SELECT kind, service_point_id, meter_id, channel, min(billing_day) AS first_day, max(billing_day) AS last_day,
    count(*) AS days, min(first_seen) AS first_seen
FROM vee.exception GROUP BY kind, service_point_id, meter_id, channel;
COMMENT ON VIEW vee.exception_span IS 'Exceptions with the days they affect.';
COMMENT ON COLUMN vee.exception_span.kind IS 'Kind.';
COMMENT ON COLUMN vee.exception_span.service_point_id IS 'Service point.';
COMMENT ON COLUMN vee.exception_span.meter_id IS 'Meter.';
COMMENT ON COLUMN vee.exception_span.channel IS 'Channel.';
COMMENT ON COLUMN vee.exception_span.first_day IS 'First billing day affected.';
COMMENT ON COLUMN vee.exception_span.last_day IS 'Last billing day affected.';
COMMENT ON COLUMN vee.exception_span.days IS 'Billing days affected.';
COMMENT ON COLUMN vee.exception_span.first_seen IS 'When it was first found.';

CREATE FUNCTION vee.row_rules(flags bigint) RETURNS text[] LANGUAGE sql STABLE STRICT AS
$$ SELECT coalesce(array_agg(code ORDER BY bit), '{}') FROM vee.rule WHERE scope = 'row' AND flags & (1::bigint << bit) <> 0 $$;
COMMENT ON FUNCTION vee.row_rules IS 'Names of the row rules in a row_flags number.';

CREATE FUNCTION vee.interval_rules(flags integer) RETURNS text[] LANGUAGE sql STABLE STRICT AS
$$ SELECT coalesce(array_agg(code ORDER BY bit), '{}') FROM vee.rule WHERE scope = 'interval' AND flags & (1 << bit) <> 0 $$;
COMMENT ON FUNCTION vee.interval_rules IS 'Names of the interval rules in a flags number.';

CREATE VIEW vee.interval AS
SELECT
    d.billing_day, d.service_point_id, d.meter_id, d.channel, s.slot,
    d.starts_at + (s.slot - 1) * d.interval_minutes * interval '1 minute' AS interval_start,
    d.interval_minutes,
    raw.quantity(s.stored, d.scale) AS value,
    d.unit, d.flow,
    raw.quality_flag(coalesce(s.code, d.quality)) AS quality,
    raw.quality_method(coalesce(s.code, d.quality)) AS quality_method,
    raw.quality_reason(coalesce(s.code, d.quality)) AS quality_reason,
    raw.quality_espi(coalesce(s.code, d.quality)) AS quality_espi,
    vee.interval_rules(coalesce(s.hits, 0)) AS rules,
    d.account_id, d.version
FROM vee.interval_day AS d
CROSS JOIN LATERAL (
    SELECT u.slot, nullif(u.v, -2147483648)::bigint AS stored, u.q AS code, u.f AS hits
    FROM unnest(d.values, d.qualities, d.flags) WITH ORDINALITY AS u (v, q, f, slot)
    WHERE d.values IS NOT NULL
    UNION ALL
    SELECT u.slot, nullif(u.v, -9223372036854775808), u.q, u.f
    FROM unnest(d.wide_values, d.qualities, d.flags) WITH ORDINALITY AS u (v, q, f, slot)
    WHERE d.wide_values IS NOT NULL
) AS s
WHERE s.stored IS NOT NULL;
COMMENT ON VIEW vee.interval IS 'One row per validated interval that has a value.';
COMMENT ON COLUMN vee.interval.billing_day IS 'Local civil day that holds the interval''s start.';
COMMENT ON COLUMN vee.interval.service_point_id IS 'Service point.';
COMMENT ON COLUMN vee.interval.meter_id IS 'Meter.';
COMMENT ON COLUMN vee.interval.channel IS 'Channel.';
COMMENT ON COLUMN vee.interval.slot IS 'Number of the interval in its billing day, from 1.';
COMMENT ON COLUMN vee.interval.interval_start IS 'Start of the interval, UTC.';
COMMENT ON COLUMN vee.interval.interval_minutes IS 'Length in minutes.';
COMMENT ON COLUMN vee.interval.value IS 'Quantity in the base unit, exact.';
COMMENT ON COLUMN vee.interval.unit IS 'Base unit.';
COMMENT ON COLUMN vee.interval.flow IS 'import, export, net or other.';
COMMENT ON COLUMN vee.interval.quality IS 'AEMO quality flag: A actual, S substituted, F final, E estimate.';
COMMENT ON COLUMN vee.interval.quality_method IS 'AEMO method of an estimate.';
COMMENT ON COLUMN vee.interval.quality_reason IS 'AEMO reason of an estimate.';
COMMENT ON COLUMN vee.interval.quality_espi IS 'ESPI QualityOfReading, where the value came with one.';
COMMENT ON COLUMN vee.interval.rules IS 'Interval rules that hit.';
COMMENT ON COLUMN vee.interval.account_id IS 'Account that pays.';
COMMENT ON COLUMN vee.interval.version IS 'Version of the row it is part of.';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
