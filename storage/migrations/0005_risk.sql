-- What was seen of whom, and how far he is restricted because of it.

-- Policy. A state that an operator lowered stays as GREEN, because what was seen before still counts for some evidence.
CREATE TABLE risks (
    subject_kind     TEXT    NOT NULL CHECK (subject_kind IN ('global', 'agent', 'capability')),
    subject_name     TEXT    NOT NULL CHECK ((subject_kind = 'global') = (subject_name = '')),
    state            TEXT    NOT NULL CHECK (state IN ('GREEN', 'YELLOW', 'ORANGE', 'RED')),
    since_us         INTEGER NOT NULL CHECK (since_us >= 0),
    last_evidence_us INTEGER NOT NULL CHECK (last_evidence_us >= 0),
    signal           TEXT    NOT NULL,
    event_seq        INTEGER NOT NULL,
    secret_us        INTEGER CHECK (secret_us >= 0),
    cleared_us       INTEGER CHECK (cleared_us >= 0),
    PRIMARY KEY (subject_kind, subject_name)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER risks_inserted AFTER INSERT ON risks BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER risks_updated AFTER UPDATE ON risks BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;
CREATE TRIGGER risks_deleted AFTER DELETE ON risks BEGIN UPDATE policy_epoch SET epoch = epoch + 1; END;

-- One row for what was seen, and how often within a minute. Never the text that was found.
CREATE TABLE risk_events (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us         INTEGER NOT NULL CHECK (at_us >= 0),
    signal        TEXT    NOT NULL,
    subject_kind  TEXT    NOT NULL CHECK (subject_kind IN ('global', 'agent', 'capability')),
    subject_name  TEXT    NOT NULL CHECK ((subject_kind = 'global') = (subject_name = '')),
    agent         TEXT,
    capability_id TEXT,
    provider      TEXT,
    route_class   TEXT,
    path          TEXT    CHECK (length(path) <= 512),
    request_id    TEXT    CHECK (length(request_id) = 26),
    pattern       TEXT    NOT NULL CHECK (length(pattern) <= 100),
    form          TEXT,
    view          TEXT,
    place         TEXT,
    byte_offset   INTEGER CHECK (byte_offset >= 0),
    action        TEXT    NOT NULL CHECK (action IN ('logged', 'refused', 'masked', 'cut')),
    -- Whether the state followed it.
    is_enforced   INTEGER NOT NULL CHECK (is_enforced IN (0, 1)),
    state_before  TEXT    NOT NULL,
    state_after   TEXT    NOT NULL,
    repeats       INTEGER NOT NULL DEFAULT 1 CHECK (repeats >= 1)
) STRICT;

CREATE INDEX risk_events_by_time ON risk_events (at_us);

-- What operators lowered, and why.
CREATE TABLE risk_clears (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us        INTEGER NOT NULL CHECK (at_us >= 0),
    subject_kind TEXT    NOT NULL,
    subject_name TEXT    NOT NULL,
    state_before TEXT    NOT NULL,
    reason       TEXT    NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000)
) STRICT;
