-- migrate:up
-- The same shard as meter_pipeline.sharding.shard_of: the first four bytes of the id's MD5, big-endian, modulo the number of shards.
CREATE FUNCTION ref.shard_of(id text, shards integer) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    RETURN (('x' || substr(md5(id), 1, 8))::bit(32)::bigint & 4294967295) % shards;
COMMENT ON FUNCTION ref.shard_of IS 'Shard (0 to shards - 1) of a service point id; a stable hash, the same as in Python.';

-- migrate:down
DROP FUNCTION ref.shard_of(text, integer);
