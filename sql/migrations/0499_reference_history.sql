-- migrate:up
-- Tables and columns of reference data that were added since history was kept get their versions too. A test holds every table of
-- schemas/reference.py against its versions: a later migration that adds a table or a column calls ref.keep_history for it.
SELECT ref.keep_history('revenue_accounts');
SELECT ref.keep_history(left(relname::text, -8)) FROM pg_class
WHERE relnamespace = 'ref'::regnamespace AND relkind = 'r' AND relname LIKE '%\_version' AND to_regclass('ref.' || quote_ident(left(relname::text, -8))) IS NOT NULL;

-- migrate:down
DROP FUNCTION ref.revenue_accounts_as_of(timestamptz);
DROP TABLE ref.revenue_accounts_version;
DROP TRIGGER keep_version ON ref.revenue_accounts;
DROP TRIGGER refuse_truncate ON ref.revenue_accounts;
ALTER TABLE ref.revenue_accounts DROP COLUMN known_from;
