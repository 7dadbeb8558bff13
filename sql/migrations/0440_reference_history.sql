-- migrate:up
-- Record time. ref.NAME keeps what is true as far as is known now; known_from says since when it is known. A row that is changed or taken out goes to
-- ref.NAME_version with the instant until which it was known. Triggers write it, so that no statement can change a row without its old one being kept.
CREATE TABLE ref.change_set (
    known_from timestamptz NOT NULL,
    ledger_entry bigint NOT NULL,
    made_by text NOT NULL,
    source text NOT NULL,
    reason text NOT NULL,
    rows integer NOT NULL CHECK (rows > 0),
    PRIMARY KEY (known_from)
);
COMMENT ON TABLE ref.change_set IS 'Every transaction that changed reference data: when it became known, who made it, and the ledger entry with a leaf for each changed row.';
COMMENT ON COLUMN ref.change_set.known_from IS 'The record time of its rows, UTC: known_from of those it wrote, known_until of those it replaced.';
COMMENT ON COLUMN ref.change_set.ledger_entry IS 'Its ledger entry (ledger.entry.entry_id).';
COMMENT ON COLUMN ref.change_set.made_by IS 'The person, or the database user of an import without a name.';
COMMENT ON COLUMN ref.change_set.source IS 'The folder, file or command it came from.';
COMMENT ON COLUMN ref.change_set.reason IS 'Why, where a person said so.';
COMMENT ON COLUMN ref.change_set.rows IS 'How many rows changed: the number of leaves.';

-- One writer at a time, and record times that only grow, so that what was known at an instant never changes afterwards.
CREATE FUNCTION ref.record_time() RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    held text := current_setting('meter_pipeline.record_time', true);
    made timestamptz;
BEGIN
    IF held <> '' THEN
        RETURN held::timestamptz;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('meter_pipeline reference data', 0));
    SELECT greatest(clock_timestamp(), max(known_from) + interval '1 microsecond') INTO made FROM ref.change_set;
    PERFORM set_config('meter_pipeline.record_time', made::text, true);
    RETURN made;
END
$$;
COMMENT ON FUNCTION ref.record_time IS 'The record time of this transaction: the same for all its rows, later than that of every transaction before.';

CREATE FUNCTION ref.keep_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    made timestamptz;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        NEW.known_from := OLD.known_from;
        IF NEW IS NOT DISTINCT FROM OLD THEN
            RETURN NULL;
        END IF;
    END IF;
    made := ref.record_time();
    IF TG_OP <> 'INSERT' AND OLD.known_from < made THEN
        EXECUTE format('INSERT INTO ref.%I SELECT (jsonb_populate_record(NULL::ref.%1$I, to_jsonb($1) || jsonb_build_object(''known_until'', $2))).*',
            TG_TABLE_NAME || '_version') USING OLD, made;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.known_from := made;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION ref.keep_version IS 'Keeps the old row of a change as a version, and stamps the new one with its record time.';

CREATE FUNCTION ref.refuse_history_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ref.% keeps what was known: its rows are never changed', TG_TABLE_NAME;
END
$$;
COMMENT ON FUNCTION ref.refuse_history_change IS 'Versions are append-only.';

-- Makes the history of a reference table, or brings it to columns that were added to the table: a migration that adds one calls it again.
CREATE FUNCTION ref.keep_history(named text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    version text := named || '_version';
    listed text;
    keys text;
    added record;
BEGIN
    IF to_regclass(format('ref.%I', version)) IS NULL THEN
        EXECUTE format('ALTER TABLE ref.%I ADD COLUMN known_from timestamptz NOT NULL DEFAULT timestamptz ''2000-01-01 00:00:00Z''', named);
        EXECUTE format('COMMENT ON COLUMN ref.%I.known_from IS %L', named, 'record time: since when the row is known as it is, UTC; 2000 for rows from before history was kept');
        EXECUTE format('CREATE TABLE ref.%I (LIKE ref.%I INCLUDING COMMENTS)', version, named);
        EXECUTE format('ALTER TABLE ref.%I ADD COLUMN known_until timestamptz NOT NULL, ADD CHECK (known_until > known_from)', version);
        EXECUTE format('COMMENT ON COLUMN ref.%I.known_until IS %L', version, 'record time at which the row was changed or taken out, UTC');
        EXECUTE format('COMMENT ON TABLE ref.%I IS %L', version, format('Rows of ref.%s as they were known before; ref.%1$s_as_of(instant) puts them together.', named));
        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.n) INTO keys FROM pg_constraint AS c, unnest(c.conkey) WITH ORDINALITY AS k (column_no, n),
            pg_attribute AS a WHERE c.conrelid = format('ref.%I', named)::regclass AND c.contype = 'p' AND a.attrelid = c.conrelid AND a.attnum = k.column_no;
        EXECUTE format('ALTER TABLE ref.%I ADD PRIMARY KEY (%s, known_from)', version, keys);
        EXECUTE format('CREATE INDEX ON ref.%I (known_until)', version);
        EXECUTE format('CREATE TRIGGER keep_version BEFORE INSERT OR UPDATE OR DELETE ON ref.%I FOR EACH ROW EXECUTE FUNCTION ref.keep_version()', named);
        EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ref.%I FOR EACH STATEMENT EXECUTE FUNCTION ref.refuse_history_change()', named);
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ref.%I FOR EACH STATEMENT EXECUTE FUNCTION ref.refuse_history_change()', version);
    END IF;
    FOR added IN
        SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS kind, col_description(a.attrelid, a.attnum) AS about FROM pg_attribute AS a
        WHERE a.attrelid = format('ref.%I', named)::regclass AND a.attnum > 0 AND NOT a.attisdropped AND NOT EXISTS
            (SELECT FROM pg_attribute AS v WHERE v.attrelid = format('ref.%I', version)::regclass AND v.attname = a.attname AND NOT v.attisdropped)
    LOOP
        EXECUTE format('ALTER TABLE ref.%I ADD COLUMN %I %s', version, added.name, added.kind);
        EXECUTE format('COMMENT ON COLUMN ref.%I.%I IS %L', version, added.name, added.about);
    END LOOP;
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO listed FROM pg_attribute
        WHERE attrelid = format('ref.%I', named)::regclass AND attnum > 0 AND NOT attisdropped;
    EXECUTE format('CREATE OR REPLACE FUNCTION ref.%I(instant timestamptz) RETURNS SETOF ref.%I LANGUAGE sql STABLE AS %L', named || '_as_of', named, format(
        'SELECT %1$s FROM ref.%2$I WHERE known_from <= instant UNION ALL SELECT %1$s FROM ref.%3$I WHERE known_from <= instant AND known_until > instant', listed, named, version));
    EXECUTE format('COMMENT ON FUNCTION ref.%I IS %L', named || '_as_of', format('The rows of ref.%s as they were known at an instant.', named));
END
$$;
COMMENT ON FUNCTION ref.keep_history IS 'Gives a reference table record time: its versions, its triggers and its as_of function.';

DO $$
DECLARE
    named text;
BEGIN
    FOREACH named IN ARRAY ARRAY['weather_stations', 'weather', 'holidays', 'service_points', 'meters', 'channels', 'register_hours', 'installations',
        'billing_cycles', 'tariffs', 'accounts', 'agreements', 'service_attributes', 'tariff_document'] LOOP
        PERFORM ref.keep_history(named);
    END LOOP;
END
$$;

-- What a transaction changed, from the rows themselves: the old version that ended and the new one that began at its record time. The leaf is what the ledger
-- holds of it: SHA-256 of the JSON text of table, old row and new row, each with its record time.
CREATE FUNCTION ref.changes_at(instant timestamptz) RETURNS TABLE (table_name text, old jsonb, new jsonb, leaf bytea) LANGUAGE plpgsql STABLE AS $$
DECLARE
    named text;
    keys text;
BEGIN
    FOR named IN SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'ref'::regnamespace AND c.relkind = 'r'
        AND to_regclass(format('ref.%I', c.relname || '_version')) IS NOT NULL ORDER BY c.relname COLLATE "C"
    LOOP
        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.n) INTO keys FROM pg_constraint AS c, unnest(c.conkey) WITH ORDINALITY AS k (column_no, n),
            pg_attribute AS a WHERE c.conrelid = format('ref.%I', named)::regclass AND c.contype = 'p' AND a.attrelid = c.conrelid AND a.attnum = k.column_no;
        RETURN QUERY EXECUTE format(
            'SELECT %1$L, o.row, n.row, sha256(convert_to(jsonb_build_object(''table'', %1$L, ''old'', o.row, ''new'', n.row)::text, ''UTF8'')) '
            'FROM (SELECT %3$s, to_jsonb(v) - ''known_until'' AS row FROM ref.%2$I AS v WHERE known_until = $1) AS o '
            'FULL JOIN (SELECT %3$s, to_jsonb(t) AS row FROM ref.%4$I AS t WHERE known_from = $1 UNION ALL '
            'SELECT %3$s, to_jsonb(v) - ''known_until'' FROM ref.%2$I AS v WHERE known_from = $1) AS n USING (%3$s) ORDER BY %3$s',
            named, named || '_version', keys, named) USING instant;
    END LOOP;
END
$$;
COMMENT ON FUNCTION ref.changes_at IS 'The rows that a transaction changed, by its record time: table, old row, new row, and the leaf of the ledger over them.';

-- migrate:down
DROP FUNCTION ref.changes_at(timestamptz);
DO $$
DECLARE
    named text;
BEGIN
    FOREACH named IN ARRAY ARRAY['weather_stations', 'weather', 'holidays', 'service_points', 'meters', 'channels', 'register_hours', 'installations',
        'billing_cycles', 'tariffs', 'accounts', 'agreements', 'service_attributes', 'tariff_document'] LOOP
        EXECUTE format('DROP FUNCTION ref.%I(timestamptz)', named || '_as_of');
        EXECUTE format('DROP TABLE ref.%I', named || '_version');
        EXECUTE format('DROP TRIGGER keep_version ON ref.%I', named);
        EXECUTE format('DROP TRIGGER refuse_truncate ON ref.%I', named);
        EXECUTE format('ALTER TABLE ref.%I DROP COLUMN known_from', named);
    END LOOP;
END
$$;
DROP FUNCTION ref.keep_history(text);
DROP FUNCTION ref.refuse_history_change();
DROP FUNCTION ref.keep_version();
DROP FUNCTION ref.record_time();
DROP TABLE ref.change_set;
