-- What `watch` remembers from one look at a provider's account to the next. No policy: bumps no epoch.

-- When a provider was first looked at. Where the log is empty, what was before that says nothing.
CREATE TABLE watch_starts (
    provider   TEXT    PRIMARY KEY NOT NULL,
    started_us INTEGER NOT NULL CHECK (started_us >= 0)
) STRICT, WITHOUT ROWID;

-- What a counter of money stood at. A key that was replaced since has another counter, from `since_us` on.
CREATE TABLE watch_samples (
    provider       TEXT    NOT NULL,
    counter        TEXT    NOT NULL,
    since_us       INTEGER NOT NULL,
    at_us          INTEGER NOT NULL CHECK (at_us >= 0),
    total_nano_usd INTEGER NOT NULL,
    PRIMARY KEY (provider, counter, since_us, at_us)
) STRICT, WITHOUT ROWID;

-- What was found, so that each finding is told of once.
CREATE TABLE watch_findings (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    provider      TEXT    NOT NULL,
    kind          TEXT    NOT NULL CHECK (kind IN ('more_use', 'unknown_model', 'idle_use', 'spend_slope')),
    model         TEXT    CHECK (length(model) <= 200),
    begin_us      INTEGER NOT NULL,
    end_us        INTEGER NOT NULL CHECK (end_us >= begin_us),
    first_seen_us INTEGER NOT NULL CHECK (first_seen_us >= 0),
    last_seen_us  INTEGER NOT NULL CHECK (last_seen_us >= 0),
    -- NULL until the owner was told and what follows from it was done.
    told_us       INTEGER CHECK (told_us >= 0),
    CHECK ((kind = 'unknown_model') = (model IS NOT NULL))
) STRICT;

CREATE INDEX watch_findings_by_provider ON watch_findings (provider, end_us);
