-- The config set that a pin names beside its artifact; null: none.
ALTER TABLE pins ADD COLUMN config_id TEXT;
