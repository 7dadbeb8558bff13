-- migrate:up
-- Service points with several meters are few: validation looks for them in the usage of five weeks, to give each meter its own history.
CREATE INDEX daily_usage_several ON vee.daily_usage (billing_day, service_point_id) WHERE meters > 1;

-- migrate:down
DROP INDEX vee.daily_usage_several;
