-- migrate:up
-- What the old system's last bills hand on to the first bills here: credits and the peaks that ratchets look back on.
CREATE TABLE ref.opening_balances (
    service_point_id text COLLATE "C" NOT NULL CHECK (service_point_id ~ '^[A-Z0-9-]([A-Z0-9 ._/-]{0,62}[A-Z0-9-])?$'),
    account_id text COLLATE "C" NOT NULL CHECK (account_id ~ '^[A-Z0-9-]([A-Z0-9 ._/-]{0,62}[A-Z0-9-])?$'),
    tariff_id text COLLATE "C" NOT NULL CHECK (tariff_id ~ '^[A-Z0-9-]{1,64}$'),
    kind text NOT NULL CHECK (kind IN ('units', 'money', 'peak')),
    name text NOT NULL,
    period_end date NOT NULL,
    quantity numeric(18,6) NOT NULL CONSTRAINT opening_balance_in_range CHECK (quantity >= 0 AND quantity < 1e12),
    PRIMARY KEY (service_point_id, account_id, tariff_id, kind, name, period_end)
);
COMMENT ON TABLE ref.opening_balances IS 'What bills of the old system hand on to the first bills here: credits for exports, in units or money, and the peaks that ratchets look back on.';
COMMENT ON COLUMN ref.opening_balances.service_point_id IS 'where the service is delivered and metered';
COMMENT ON COLUMN ref.opening_balances.account_id IS 'account that pays';
COMMENT ON COLUMN ref.opening_balances.tariff_id IS 'tariff that it is charged on here';
COMMENT ON COLUMN ref.opening_balances.kind IS 'units (credit in the tariff''s unit), money (credit in the currency) or peak (highest demand of the period, kW)';
COMMENT ON COLUMN ref.opening_balances.name IS 'units: the time-of-use period; peak: the demand register, as meter-pipeline tariffs explain names it; money: -';
COMMENT ON COLUMN ref.opening_balances.period_end IS 'day after the last of the old bill''s period';
COMMENT ON COLUMN ref.opening_balances.quantity IS 'how much';
SELECT ref.keep_history('opening_balances');

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only: restore a backup'; END $$;
