-- What is planted to be found. Whoever reads this file can tell decoys from keys; it is as private as the home.

CREATE TABLE canaries (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 63),
    kind          TEXT    NOT NULL CHECK (kind IN ('prompt', 'decoy', 'vault')),
    shape         TEXT,
    -- A canary of the vault is in the vault alone: who shows it has read that and not this.
    value         TEXT    CHECK (length(value) >= 20),
    value_hash    BLOB    CHECK (length(value_hash) = 32),
    agent         TEXT    REFERENCES agents (name),
    -- The capability of the run that it ends with.
    capability_id TEXT    REFERENCES capabilities (id),
    created_at_us INTEGER NOT NULL CHECK (created_at_us >= 0),
    -- One that was removed stays, so that what happened with it can still be told.
    removed_at_us INTEGER CHECK (removed_at_us >= 0),
    CHECK ((kind = 'vault') = (value IS NULL)),
    CHECK ((kind = 'vault') = (value_hash IS NOT NULL)),
    CHECK ((kind = 'prompt') = (shape IS NULL)),
    CHECK (capability_id IS NULL OR agent IS NOT NULL)
) STRICT;

CREATE UNIQUE INDEX canaries_by_name ON canaries (name) WHERE removed_at_us IS NULL;
CREATE INDEX canaries_by_capability ON canaries (capability_id) WHERE capability_id IS NOT NULL;

-- Lines that were added to files, so that they can be taken out again. No policy: bumps no epoch.
CREATE TABLE canary_plants (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    canary_id     INTEGER NOT NULL REFERENCES canaries (id),
    path          TEXT    NOT NULL,
    lines         TEXT    NOT NULL,
    -- Whether the file was made for them, or its last line had to be ended first.
    manner        TEXT    NOT NULL CHECK (manner IN ('made', 'ended_line', 'appended')),
    planted_at_us INTEGER NOT NULL CHECK (planted_at_us >= 0)
) STRICT;

CREATE INDEX canary_plants_by_canary ON canary_plants (canary_id);

CREATE TRIGGER canaries_inserted AFTER INSERT ON canaries BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER canaries_updated AFTER UPDATE ON canaries BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER canaries_deleted AFTER DELETE ON canaries BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
