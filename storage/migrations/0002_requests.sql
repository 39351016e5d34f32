-- The request log: one row for each request that ended, appended by the writer.
--
-- `seq` is handed out inside the write transaction, so its order is the order of the commits and a reader that
-- continues after the last `seq` it saw misses nothing. AUTOINCREMENT keeps numbers from being used again after
-- old rows are deleted. `agent` and `capability_id` are no foreign keys: the log outlives what it names.
CREATE TABLE requests (
    seq                   INTEGER PRIMARY KEY AUTOINCREMENT,
    id                    TEXT    NOT NULL UNIQUE CHECK (length(id) = 26),
    started_at_us         INTEGER NOT NULL CHECK (started_at_us >= 0),
    provider              TEXT,
    route_class           TEXT,
    method                TEXT    NOT NULL CHECK (length(method) <= 32),
    path                  TEXT    NOT NULL CHECK (length(path) <= 512),
    model                 TEXT    CHECK (length(model) <= 200),
    agent                 TEXT,
    capability_id         TEXT,
    transport             TEXT    NOT NULL CHECK (transport IN ('tcp', 'unix')),
    peer_pid              INTEGER,
    peer_uid              INTEGER,
    is_streaming          INTEGER NOT NULL CHECK (is_streaming IN (0, 1)),
    status                INTEGER CHECK (status BETWEEN 0 AND 999),
    error_code            TEXT    CHECK (length(error_code) <= 64),
    -- In pairs: for a longer list SQLite builds a table of its own with each row.
    outcome               TEXT    NOT NULL CHECK (outcome IN ('completed', 'refused') OR
                              outcome IN ('upstream_error', 'client_gone') OR outcome IN ('cut', 'unfinished')),
    usage_basis           TEXT    NOT NULL CHECK (usage_basis IN ('reported', 'estimated') OR usage_basis = 'none'),
    -- No request has a trillion tokens. The bound keeps a hostile number from making every later sum overflow.
    input_tokens          INTEGER NOT NULL CHECK (input_tokens BETWEEN 0 AND 1000000000000),
    cache_read_tokens     INTEGER NOT NULL CHECK (cache_read_tokens BETWEEN 0 AND 1000000000000),
    cache_write_5m_tokens INTEGER NOT NULL CHECK (cache_write_5m_tokens BETWEEN 0 AND 1000000000000),
    cache_write_1h_tokens INTEGER NOT NULL CHECK (cache_write_1h_tokens BETWEEN 0 AND 1000000000000),
    output_tokens         INTEGER NOT NULL CHECK (output_tokens BETWEEN 0 AND 1000000000000),
    reasoning_tokens      INTEGER NOT NULL CHECK (reasoning_tokens BETWEEN 0 AND 1000000000000),
    cost_nano_usd         INTEGER CHECK (cost_nano_usd >= 0), -- NULL: the price is unknown; 0: it was free
    latency_us            INTEGER NOT NULL CHECK (latency_us >= 0),
    first_byte_us         INTEGER CHECK (first_byte_us >= 0),
    request_bytes         INTEGER NOT NULL CHECK (request_bytes >= 0),
    response_bytes        INTEGER NOT NULL CHECK (response_bytes >= 0),
    repeats               INTEGER NOT NULL DEFAULT 1 CHECK (repeats >= 1)
) STRICT;

CREATE INDEX requests_by_time ON requests (started_at_us);
CREATE INDEX requests_by_provider ON requests (provider, started_at_us);
CREATE INDEX requests_by_agent ON requests (agent, started_at_us);
CREATE INDEX requests_by_capability ON requests (capability_id, started_at_us);

-- Rows are appended, not edited. Only `repeats` may grow, by which repeated refusals share one row.
CREATE TRIGGER requests_are_not_edited
BEFORE UPDATE OF seq, id, started_at_us, provider, route_class, method, path, model, agent, capability_id, transport,
    peer_pid, peer_uid, is_streaming, status, error_code, outcome, usage_basis, input_tokens, cache_read_tokens,
    cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, latency_us,
    first_byte_us, request_bytes, response_bytes ON requests
BEGIN SELECT RAISE(ABORT, 'rows of the request log are not edited'); END;
