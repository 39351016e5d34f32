-- Who may ask for what. Every table here bumps `policy_epoch`, so that a reader whose `data_version` moved can
-- tell a change of policy from a commit of the request log by reading one number.

CREATE TABLE agents (
    name          TEXT    NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 63),
    created_at_us INTEGER NOT NULL CHECK (created_at_us >= 0),
    note          TEXT
) STRICT, WITHOUT ROWID;

-- The lists of a scope are JSON in the capability's own row, not child tables: an empty list limits nothing, so
-- a child row lost or left unread would silently widen what a capability allows. One row is read whole or not.
CREATE TABLE capabilities (
    id                   TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 8),
    secret_hash          BLOB    NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
    agent                TEXT    NOT NULL REFERENCES agents (name),
    providers_json       TEXT    NOT NULL CHECK (json_valid(providers_json) AND json_type(providers_json) = 'array'),
    models_json          TEXT    NOT NULL CHECK (json_valid(models_json) AND json_type(models_json) = 'array'),
    routes_json          TEXT    NOT NULL CHECK (json_valid(routes_json) AND json_type(routes_json) = 'array'),
    requires_unix_socket INTEGER NOT NULL CHECK (requires_unix_socket IN (0, 1)),
    created_at_us        INTEGER NOT NULL CHECK (created_at_us >= 0),
    expires_at_us        INTEGER CHECK (expires_at_us > created_at_us),
    revoked_at_us        INTEGER CHECK (revoked_at_us >= 0),
    revoke_reason        TEXT,
    CHECK ((revoked_at_us IS NULL) = (revoke_reason IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX capabilities_by_agent ON capabilities (agent);

CREATE TABLE policy_epoch (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    epoch    INTEGER NOT NULL CHECK (epoch >= 0)
) STRICT;

INSERT INTO policy_epoch (only_row, epoch) VALUES (1, 0);

CREATE TRIGGER agents_inserted AFTER INSERT ON agents BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER agents_updated AFTER UPDATE ON agents BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER agents_deleted AFTER DELETE ON agents BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER capabilities_inserted AFTER INSERT ON capabilities BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER capabilities_updated AFTER UPDATE ON capabilities BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER capabilities_deleted AFTER DELETE ON capabilities BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
