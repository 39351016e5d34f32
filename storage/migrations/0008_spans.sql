-- Where in the log the rows of an agent and of a capability are. An index on each would cost a page of the disk with nearly
-- every row where many agents take turns; this is written behind the sums, a part of the log at a time, and only ever
-- appended to. It holds nothing that is not in the log.

-- `part` is the last row of a part of the log. Text is empty where requests had no such thing.
CREATE TABLE request_spans (
    part             INTEGER NOT NULL,
    agent            TEXT    NOT NULL,
    capability_id    TEXT    NOT NULL,
    first_seq        INTEGER NOT NULL,
    last_seq         INTEGER NOT NULL CHECK (last_seq BETWEEN first_seq AND part),
    first_started_us INTEGER NOT NULL,
    last_started_us  INTEGER NOT NULL,
    last_used_us     INTEGER, -- when the last admitted one began; NULL: all were refused
    PRIMARY KEY (part, agent, capability_id)
) STRICT, WITHOUT ROWID;

DROP INDEX requests_by_agent;
DROP INDEX requests_by_capability;

-- What is summed up already.
INSERT INTO request_spans
SELECT min((seq + 16383) / 16384 * 16384, (SELECT through_seq FROM request_sums_mark)) AS part,
       coalesce(agent, ''), coalesce(capability_id, ''), min(seq), max(seq), min(started_at_us), max(started_at_us),
       max(iif(outcome <> 'refused', started_at_us, NULL))
FROM requests NOT INDEXED
WHERE seq <= (SELECT through_seq FROM request_sums_mark)
GROUP BY 1, 2, 3;
