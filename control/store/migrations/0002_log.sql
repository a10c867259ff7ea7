-- Hashes of the Merkle tree over the audit log, as tiles have them: level 0 has the hash of each entry, level 1 the root of
-- each 256 of those, and so on. Written with the entry, never rewritten; entries from before are added when the store is loaded.
CREATE TABLE log_hashes (
  level BIGINT NOT NULL,
  n BIGINT NOT NULL,
  hash TEXT NOT NULL,
  PRIMARY KEY (level, n)
);
