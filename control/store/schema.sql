CREATE TABLE api_tokens (
  id TEXT PRIMARY KEY,
  hash TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  expires_at_ms BIGINT,
  revoked_at_ms BIGINT
, groups TEXT);
CREATE TABLE attempts (
  host_id TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
  n BIGINT NOT NULL,
  rollout_id TEXT,
  stage BIGINT,
  artifact_id TEXT NOT NULL,
  retry_generation BIGINT NOT NULL,
  agent_attempt TEXT,
  phase TEXT NOT NULL,
  outcome TEXT NOT NULL,
  code TEXT,
  message TEXT NOT NULL,
  offered_at_ms BIGINT NOT NULL,
  switched_at_ms BIGINT,
  ended_at_ms BIGINT,
  PRIMARY KEY (host_id, n)
);
CREATE TABLE audit (
  id BIGINT PRIMARY KEY,
  at_ms BIGINT NOT NULL,
  actor TEXT NOT NULL,
  type TEXT NOT NULL,
  subject TEXT NOT NULL,
  details TEXT NOT NULL
);
CREATE TABLE decisions (
  id BIGINT PRIMARY KEY,
  rollout_id TEXT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
  at_ms BIGINT NOT NULL,
  kind TEXT NOT NULL,
  host_id TEXT,
  stage BIGINT,
  words TEXT NOT NULL
);
CREATE TABLE fleet_groups (
  name TEXT PRIMARY KEY,
  selector TEXT,
  priority BIGINT NOT NULL,
  description TEXT NOT NULL,
  rollout_policy TEXT NOT NULL,
  poll_policy TEXT NOT NULL,
  revision BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  pin_seq BIGINT NOT NULL,
  current_artifact TEXT
);
CREATE TABLE halts (
  scope TEXT PRIMARY KEY,
  reason TEXT NOT NULL,
  actor TEXT NOT NULL,
  at_ms BIGINT NOT NULL
);
CREATE TABLE host_seen (
  host_id TEXT PRIMARY KEY REFERENCES hosts (id) ON DELETE CASCADE,
  last_seen_at_ms BIGINT NOT NULL
);
CREATE TABLE hosts (
  id TEXT PRIMARY KEY,
  group_name TEXT NOT NULL REFERENCES fleet_groups (name),
  labels TEXT NOT NULL,
  class TEXT NOT NULL,
  arch TEXT NOT NULL,
  key_id TEXT NOT NULL UNIQUE,
  sign_key TEXT NOT NULL,
  seal_key TEXT NOT NULL,
  statement TEXT NOT NULL,
  enrolled_at_ms BIGINT NOT NULL,
  agent_version TEXT NOT NULL,
  facts TEXT NOT NULL,
  generation BIGINT NOT NULL,
  rollback_generation BIGINT NOT NULL,
  hold TEXT,
  quarantine TEXT,
  retries TEXT NOT NULL,
  forgiven TEXT NOT NULL,
  seq BIGINT NOT NULL,
  boot_id TEXT,
  past_boots TEXT NOT NULL,
  rewinds BIGINT NOT NULL,
  running TEXT,
  previous TEXT,
  state TEXT NOT NULL,
  healthy TEXT,
  why TEXT NOT NULL,
  denied TEXT NOT NULL,
  observed_epoch BIGINT NOT NULL
);
CREATE TABLE join_tokens (
  id TEXT PRIMARY KEY,
  hash TEXT NOT NULL UNIQUE,
  group_name TEXT,
  labels TEXT NOT NULL,
  description TEXT NOT NULL,
  replaces_host TEXT,
  created_at_ms BIGINT NOT NULL,
  expires_at_ms BIGINT NOT NULL,
  used_at_ms BIGINT,
  used_by TEXT,
  actor TEXT NOT NULL
);
CREATE TABLE log_hashes (
  level BIGINT NOT NULL,
  n BIGINT NOT NULL,
  hash TEXT NOT NULL,
  PRIMARY KEY (level, n)
);
CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
);
CREATE TABLE pins (
  group_name TEXT NOT NULL REFERENCES fleet_groups (name) ON DELETE CASCADE,
  seq BIGINT NOT NULL,
  host_id TEXT,
  artifact_id TEXT NOT NULL REFERENCES releases (artifact_id),
  reason TEXT NOT NULL,
  ticket TEXT,
  actor TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  expires_at_ms BIGINT,
  epoch BIGINT NOT NULL,
  removed_at_ms BIGINT, config_id TEXT,
  PRIMARY KEY (group_name, seq)
);
CREATE TABLE releases (
  artifact_id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  class TEXT NOT NULL,
  arch TEXT NOT NULL,
  version TEXT NOT NULL,
  release BIGINT NOT NULL,
  size_bytes BIGINT NOT NULL,
  bundle_bytes BIGINT,
  revoked TEXT,
  sources TEXT NOT NULL,
  signers TEXT NOT NULL,
  imported_at_ms BIGINT NOT NULL,
  imported_by TEXT NOT NULL
);
CREATE TABLE report_events (
  host_id TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
  event_id TEXT NOT NULL,
  seq BIGINT NOT NULL,
  ordinal BIGINT NOT NULL,
  attempt TEXT NOT NULL,
  rollout_id TEXT,
  artifact_id TEXT NOT NULL,
  phase TEXT NOT NULL,
  code TEXT,
  message TEXT NOT NULL,
  host_at_ms BIGINT NOT NULL,
  received_at_ms BIGINT NOT NULL,
  evidence TEXT NOT NULL,
  PRIMARY KEY (host_id, event_id)
);
CREATE TABLE reports (
  host_id TEXT NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
  seq BIGINT NOT NULL,
  digest TEXT NOT NULL,
  envelope TEXT NOT NULL,
  received_at_ms BIGINT NOT NULL,
  PRIMARY KEY (host_id, seq)
);
CREATE TABLE rollouts (
  id TEXT PRIMARY KEY,
  group_name TEXT NOT NULL REFERENCES fleet_groups (name) ON DELETE CASCADE,
  artifact_id TEXT NOT NULL,
  previous TEXT,
  pin_seq BIGINT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  words TEXT NOT NULL,
  actor TEXT NOT NULL,
  policy TEXT NOT NULL,
  stages TEXT NOT NULL,
  accepted_at_ms BIGINT NOT NULL,
  is_reverting BIGINT NOT NULL,
  started_at_ms BIGINT NOT NULL,
  ended_at_ms BIGINT
);
CREATE TABLE trust_files (
  path TEXT PRIMARY KEY,
  content TEXT NOT NULL
);
CREATE INDEX attempts_by_rollout ON attempts (rollout_id);
CREATE INDEX audit_by_subject ON audit (subject, id);
CREATE INDEX decisions_by_rollout ON decisions (rollout_id, id);
CREATE INDEX hosts_by_group ON hosts (group_name);
CREATE INDEX report_events_by_order ON report_events (host_id, seq, ordinal);
CREATE INDEX rollouts_by_group ON rollouts (group_name, started_at_ms);
