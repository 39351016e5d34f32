-- What the owner allows, and how he takes it back: kill, revocations, rates, budgets, and what was spent of them.

-- While the row is there, nothing is served. Its own switch: lifting it changes nothing else.
CREATE TABLE kill_switch (
    only_row     INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    killed_at_us INTEGER NOT NULL CHECK (killed_at_us >= 0),
    reason       TEXT    NOT NULL
) STRICT;

CREATE TABLE revoked_providers (
    provider      TEXT    NOT NULL PRIMARY KEY,
    revoked_at_us INTEGER NOT NULL CHECK (revoked_at_us >= 0),
    reason        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- An agent that is revoked has no capability in force, whatever their own rows say; restoring it changes no other.
ALTER TABLE agents ADD COLUMN revoked_at_us INTEGER CHECK (revoked_at_us >= 0);
ALTER TABLE agents ADD COLUMN revoke_reason TEXT;

-- A child allows what it says and what each of its ancestors allows, and ends with the first of them.
ALTER TABLE capabilities ADD COLUMN parent_id TEXT REFERENCES capabilities (id);
ALTER TABLE capabilities ADD COLUMN methods_json TEXT NOT NULL DEFAULT '[]'
    CHECK (json_valid(methods_json) AND json_type(methods_json) = 'array');
-- What a child is for, in the words of whoever made it.
ALTER TABLE capabilities ADD COLUMN note TEXT CHECK (length(note) <= 200);

CREATE INDEX capabilities_by_parent ON capabilities (parent_id);

-- A subject is everything (`global`, name empty), a provider, an agent or a capability; no foreign keys, because a
-- limit may be set before what it limits is first used.
CREATE TABLE rate_limits (
    subject_kind        TEXT    NOT NULL CHECK (subject_kind IN ('global', 'provider', 'agent', 'capability')),
    subject_name        TEXT    NOT NULL CHECK ((subject_kind = 'global') = (subject_name = '')),
    requests_per_minute INTEGER CHECK (requests_per_minute BETWEEN 0 AND 1000000),
    tokens_per_minute   INTEGER CHECK (tokens_per_minute BETWEEN 0 AND 1000000000000),
    concurrent          INTEGER CHECK (concurrent BETWEEN 0 AND 1000000),
    PRIMARY KEY (subject_kind, subject_name)
) STRICT, WITHOUT ROWID;

CREATE TABLE budgets (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    subject_kind  TEXT    NOT NULL CHECK (subject_kind IN ('global', 'provider', 'agent', 'capability')),
    subject_name  TEXT    NOT NULL CHECK ((subject_kind = 'global') = (subject_name = '')),
    period        TEXT    NOT NULL,
    unit          TEXT    NOT NULL CHECK (unit IN ('nano_usd', 'tokens')),
    limit_amount  INTEGER NOT NULL CHECK (limit_amount >= 0),
    created_at_us INTEGER NOT NULL CHECK (created_at_us >= 0),
    UNIQUE (subject_kind, subject_name, period, unit)
) STRICT;

CREATE TRIGGER kill_switch_inserted AFTER INSERT ON kill_switch BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER kill_switch_updated AFTER UPDATE ON kill_switch BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER kill_switch_deleted AFTER DELETE ON kill_switch BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER revoked_providers_inserted AFTER INSERT ON revoked_providers BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER revoked_providers_updated AFTER UPDATE ON revoked_providers BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER revoked_providers_deleted AFTER DELETE ON revoked_providers BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER rate_limits_inserted AFTER INSERT ON rate_limits BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER rate_limits_updated AFTER UPDATE ON rate_limits BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER rate_limits_deleted AFTER DELETE ON rate_limits BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER budgets_inserted AFTER INSERT ON budgets BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER budgets_updated AFTER UPDATE ON budgets BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER budgets_deleted AFTER DELETE ON budgets BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;

-- The ledger. Not policy: it changes with every batch of the log and bumps no epoch.
--
-- A bucket is the whole period for a calendar budget and `total`, and a slice of the window for a rolling one.
CREATE TABLE budget_spend (
    budget_id        INTEGER NOT NULL REFERENCES budgets (id) ON DELETE CASCADE,
    bucket_start_us  INTEGER NOT NULL,
    spent_amount     INTEGER NOT NULL CHECK (spent_amount >= 0),
    -- How much of it was leased to a process that died before it settled.
    forfeited_amount INTEGER NOT NULL DEFAULT 0 CHECK (forfeited_amount BETWEEN 0 AND spent_amount),
    is_warned        INTEGER NOT NULL DEFAULT 0 CHECK (is_warned IN (0, 1)),
    PRIMARY KEY (budget_id, bucket_start_us)
) STRICT, WITHOUT ROWID;

-- What a running process may still spend: borrowed in a committed transaction before anybody spends it.
CREATE TABLE budget_leases (
    budget_id       INTEGER NOT NULL REFERENCES budgets (id) ON DELETE CASCADE,
    bucket_start_us INTEGER NOT NULL,
    holder          TEXT    NOT NULL CHECK (length(holder) = 26),
    amount          INTEGER NOT NULL CHECK (amount > 0),
    PRIMARY KEY (budget_id, bucket_start_us, holder)
) STRICT, WITHOUT ROWID;

-- The latest instant that was seen. Periods and lifetimes go by it, so that a clock set back re-opens nothing.
CREATE TABLE clock (
    only_row      INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    high_water_us INTEGER NOT NULL CHECK (high_water_us >= 0)
) STRICT;

INSERT INTO clock (only_row, high_water_us) VALUES (1, 0);

-- The limit on the answer's length that we set where a budget did not afford what was asked for.
ALTER TABLE requests ADD COLUMN output_limit_tokens INTEGER CHECK (output_limit_tokens BETWEEN 0 AND 1000000000000);

DROP TRIGGER requests_are_not_edited;
CREATE TRIGGER requests_are_not_edited
BEFORE UPDATE OF seq, id, started_at_us, provider, route_class, method, path, model, agent, capability_id, transport,
    peer_pid, peer_uid, is_streaming, status, error_code, outcome, usage_basis, input_tokens, cache_read_tokens,
    cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, cost_nano_usd, latency_us,
    first_byte_us, request_bytes, response_bytes, output_limit_tokens ON requests
BEGIN SELECT RAISE(ABORT, 'rows of the request log are not edited'); END;
