-- migrate:up
-- A baseline may stand on degree hours where a station's hours are known and they fit better.
ALTER TABLE anomaly.baseline ADD COLUMN hourly boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN anomaly.baseline.hourly IS 'Degree hours rather than degree days: kept where the station has hours and they fit better (adjusted R2).';

-- migrate:down
ALTER TABLE anomaly.baseline DROP COLUMN hourly;
