-- Sums over rows of the log that do not change any more, so that questions to a long log are answered at once. They hold
-- nothing that is not in the log, and can be made again from it.

-- One row for what is alike in a quarter of an hour and in a part of the log: rows of the same group add up. The quarter,
-- because days and hours of every time zone begin at one. Text is NULL where requests had no such thing.
CREATE TABLE request_sums (
    id                 INTEGER PRIMARY KEY,
    quarter_us         INTEGER NOT NULL,
    provider           TEXT,
    model              TEXT,
    agent              TEXT,
    status             INTEGER,
    requests           INTEGER NOT NULL,
    refused            INTEGER NOT NULL,
    errors             INTEGER NOT NULL,
    input_tokens       INTEGER NOT NULL,
    cache_read_tokens  INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    cost_nano_usd      INTEGER NOT NULL,
    unpriced           INTEGER NOT NULL,
    -- Histograms of microseconds, as the program writes them.
    latencies          BLOB    NOT NULL,
    first_bytes        BLOB    NOT NULL
) STRICT;

CREATE INDEX request_sums_by_time ON request_sums (quarter_us);

-- Rows of the log up to this one are summed up.
CREATE TABLE request_sums_mark (
    only_row    INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    through_seq INTEGER NOT NULL CHECK (through_seq >= 0)
) STRICT;

INSERT INTO request_sums_mark (only_row, through_seq) VALUES (1, 0);
