-- Groups that an operator's token may change, as JSON; null: all.
ALTER TABLE api_tokens ADD COLUMN groups TEXT;
