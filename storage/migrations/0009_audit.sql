-- What the owner changed: a chain, in which the hash of each row covers the row and the hash of the one before it.
-- No policy: bumps no epoch. Retention leaves it alone.
CREATE TABLE audit (
    seq       INTEGER PRIMARY KEY CHECK (seq >= 1),
    at_us     INTEGER NOT NULL CHECK (at_us >= 0),
    -- `uid/pid/command`: who did it, by which command.
    actor     TEXT    NOT NULL,
    action    TEXT    NOT NULL,
    subject   TEXT    NOT NULL,
    -- What it was before and is now; never a secret.
    detail    TEXT    NOT NULL CHECK (json_valid(detail) AND json_type(detail) = 'object'),
    prev_hash BLOB    NOT NULL CHECK (length(prev_hash) = 32),
    hash      BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- These keep mistakes out, not attackers: who can write to the file can drop them.
CREATE TRIGGER audit_is_not_edited BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'rows of the audit log are not edited'); END;

CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'rows of the audit log are not deleted'); END;

-- A row that replaces another is deleted without the trigger above, but does not come behind the last one.
CREATE TRIGGER audit_is_a_chain BEFORE INSERT ON audit
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit)
  OR NEW.prev_hash <> coalesce((SELECT hash FROM audit ORDER BY seq DESC LIMIT 1), zeroblob(32))
BEGIN SELECT RAISE(ABORT, 'rows of the audit log are added behind the last one'); END;
