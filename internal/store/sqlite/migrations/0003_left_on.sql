-- What deleted versions may have left on a cli machine is looked for all the
-- time: delivered_to of a deleted version names the machine until it has said
-- that the files are gone.
CREATE INDEX provider_credentials_left_on ON provider_credentials (user_id, delivered_to, provider)
    WHERE deleted_at IS NOT NULL AND delivered_to <> '';
