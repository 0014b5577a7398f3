-- Only the active version has content: one that a newer one has replaced keeps
-- its row without, as a deleted one does. The table is made anew, since a CHECK
-- cannot be changed; foreign keys are off meanwhile (migrate.go).
CREATE TABLE provider_credentials_new (
    id           TEXT    NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    user_id      TEXT    NOT NULL REFERENCES users (id),
    provider     TEXT    NOT NULL CHECK (length(provider) BETWEEN 1 AND 32),
    version      INTEGER NOT NULL CHECK (version >= 1),
    active       INTEGER NOT NULL CHECK (active IN (0, 1)),
    session_id   TEXT,
    account      TEXT    NOT NULL CHECK (length(account) <= 400),
    expires_at   INTEGER,
    created_at   INTEGER NOT NULL,
    delivered_at INTEGER,
    delivered_to TEXT    NOT NULL CHECK (length(delivered_to) <= 64),
    deleted_at   INTEGER,
    seal_schema  INTEGER NOT NULL CHECK (seal_schema >= 1),
    kek_id       TEXT    NOT NULL CHECK (length(kek_id) BETWEEN 1 AND 64),
    wrapped_dek  BLOB    NOT NULL CHECK (length(wrapped_dek) <= 4096),
    ciphertext   BLOB    NOT NULL CHECK (length(ciphertext) <= 4194304),
    sha256       BLOB    NOT NULL CHECK (length(sha256) = 32),
    UNIQUE (id, user_id),
    UNIQUE (user_id, provider, version),
    FOREIGN KEY (session_id, user_id) REFERENCES auth_sessions (id, user_id),
    CHECK (deleted_at IS NULL OR (active = 0 AND account = '')),
    CHECK ((length(wrapped_dek) > 0) = active),
    CHECK ((length(ciphertext) > 0) = active)
) STRICT;
INSERT INTO provider_credentials_new
    SELECT id, user_id, provider, version, active, session_id, account, expires_at, created_at, delivered_at, delivered_to,
        deleted_at, seal_schema, kek_id, iif(active, wrapped_dek, x''), iif(active, ciphertext, x''), sha256
    FROM provider_credentials;
DROP TABLE provider_credentials;
ALTER TABLE provider_credentials_new RENAME TO provider_credentials;
CREATE UNIQUE INDEX provider_credentials_active ON provider_credentials (user_id, provider) WHERE active = 1;
CREATE INDEX provider_credentials_by_kek ON provider_credentials (kek_id) WHERE active = 1;
