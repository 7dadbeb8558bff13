-- The tables on a Citus cluster, distributed by service point. The owner runs it one time, after the migrations and before
-- the first load; running it again changes nothing:
--   psql "$METER_PIPELINE_DATABASE_URL" -f sql/citus.sql
-- Where the extension is not installed, as on every one-machine deployment, it does nothing and says so.
--
-- vee and billing are distributed by service_point_id: money, usage and estimates belong to a service point and not to a
-- meter, since an exchanged meter's day is two meters at one point. Raw reads name only a meter, and a meter may be moved;
-- they are distributed by meter_id in a colocation group of their own. Validation reads a shard of raw reads by its
-- meters, and the reference copy of ref.installations says whose they are, so that the two groups meet only in the worker
-- that validates, never in a join on the cluster. Every query of the hot path is within one group, or joins a group with
-- reference tables (meter_pipeline_tests/postgres/test_citus.py reads their plans). The two reconciliation checks that
-- compare raw with validated rows aggregate both sides by meter and run once a day; they are repartition joins.
DO $citus$
DECLARE
    listed text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citus') THEN
        RAISE NOTICE 'citus is not installed here: the tables stay on this server';
        RETURN;
    END IF;
    CREATE EXTENSION IF NOT EXISTS citus;
    -- Reference data is read by every shard: a copy on every node.
    FOR listed IN
        SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = 'ref' AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM citus_tables AS t WHERE t.table_name = c.oid::regclass)
        ORDER BY c.relname
    LOOP
        PERFORM create_reference_table(listed::regclass);
    END LOOP;
    -- Small tables that hot queries join.
    FOREACH listed IN ARRAY ARRAY['billing.tariff_version', 'billing.period', 'vee.rule', 'vee.group_day', 'anomaly.baseline_version'] LOOP
        IF NOT EXISTS (SELECT FROM citus_tables AS t WHERE t.table_name = listed::regclass) THEN
            PERFORM create_reference_table(listed::regclass);
        END IF;
    END LOOP;
    -- Sealed months are refused by triggers that read billing.period alone, a copy of which every node now has.
    PERFORM set_config('citus.enable_unsafe_triggers', 'on', false);
    -- A unique key must hold the distribution column. The idempotency key is a hash over the meter among others, so that the meter beside it changes nothing.
    IF EXISTS (SELECT FROM pg_constraint WHERE conname = 'register_read_idempotency_key_channel_billing_day_key') THEN
        ALTER TABLE raw.register_read DROP CONSTRAINT register_read_idempotency_key_channel_billing_day_key;
        ALTER TABLE raw.register_read ADD UNIQUE (idempotency_key, meter_id, channel, billing_day);
    END IF;
    -- Raw reads, by meter.
    FOREACH listed IN ARRAY ARRAY['raw.interval_day', 'raw.interval_payload', 'raw.register_read', 'raw.register_payload'] LOOP
        IF NOT EXISTS (SELECT FROM citus_tables AS t WHERE t.table_name = listed::regclass) THEN
            PERFORM create_distributed_table(listed::regclass, 'meter_id', colocate_with => CASE listed WHEN 'raw.interval_day' THEN 'none' ELSE 'raw.interval_day' END);
        END IF;
    END LOOP;
    -- Everything of a service point, by service point.
    FOREACH listed IN ARRAY ARRAY[
        'vee.interval_day', 'vee.interval_day_version', 'vee.register_day', 'vee.daily_usage', 'vee.exception',
        'billing.determinant_day', 'billing.charge_day', 'billing.exception_day', 'billing.determinant_revision'
    ] LOOP
        IF NOT EXISTS (SELECT FROM citus_tables AS t WHERE t.table_name = listed::regclass) THEN
            PERFORM create_distributed_table(listed::regclass, 'service_point_id', colocate_with => CASE listed WHEN 'vee.interval_day' THEN 'none' ELSE 'vee.interval_day' END);
        END IF;
    END LOOP;
    -- Files, dead letters, the ledger, control and the queue of exceptions stay on the coordinator: they are small, and the ledger's order is one.
END
$citus$;
