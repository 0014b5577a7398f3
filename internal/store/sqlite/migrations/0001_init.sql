-- Times are integer milliseconds since 1970 in UTC; NULL is "never".
-- Ids are 20 lower-case base-32 characters where Anteroom makes them.
-- A reference carries user_id with it, so that no row can name another
-- person's machine, session or credential, whatever the program does.

CREATE TABLE users (
    id         TEXT    NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    name       TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    id           TEXT    NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    user_id      TEXT    NOT NULL REFERENCES users (id),
    kind         TEXT    NOT NULL CHECK (kind IN ('api', 'link', 'cookie')),
    label        TEXT    NOT NULL CHECK (length(label) <= 200),
    hash         BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER
) STRICT;
CREATE INDEX tokens_by_user ON tokens (user_id, created_at);
CREATE INDEX tokens_by_expiry ON tokens (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE tickets (
    hash       BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    user_id    TEXT    NOT NULL REFERENCES users (id),
    purpose    TEXT    NOT NULL CHECK (purpose IN ('viewer', 'terminal')),
    subject_id TEXT    NOT NULL CHECK (length(subject_id) BETWEEN 1 AND 64),
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tickets_by_expiry ON tickets (expires_at);

CREATE TABLE auth_sessions (
    id              TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 20 AND id NOT GLOB '*[^a-z2-7]*'),
    user_id         TEXT    NOT NULL REFERENCES users (id),
    provider        TEXT    NOT NULL CHECK (length(provider) BETWEEN 1 AND 32),
    state           TEXT    NOT NULL CHECK (state IN (
        'requested', 'starting', 'waiting', 'capturing', 'storing', 'delivering',
        'completed', 'failed', 'expired', 'cancelled')),
    attempt         INTEGER NOT NULL CHECK (attempt BETWEEN 0 AND 1000),
    reason          TEXT    NOT NULL CHECK (length(reason) <= 40 AND reason NOT GLOB '*[^a-z_]*'),
    detail          TEXT    NOT NULL CHECK (length(detail) <= 1000),
    vm_id           TEXT    UNIQUE,
    viewer_url      TEXT    NOT NULL CHECK (length(viewer_url) <= 400),
    view            TEXT    NOT NULL CHECK (length(view) <= 2000),
    credential_id   TEXT,
    idempotency_key TEXT    CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    lease_owner     TEXT    NOT NULL CHECK (length(lease_owner) <= 200),
    last_heartbeat  INTEGER,
    deadline        INTEGER,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    UNIQUE (id, user_id),
    UNIQUE (user_id, idempotency_key),
    FOREIGN KEY (vm_id, user_id) REFERENCES vms (id, user_id),
    FOREIGN KEY (credential_id, user_id) REFERENCES provider_credentials (id, user_id),
    -- Exactly the three states that end without success say why.
    CHECK ((reason <> '') = (state IN ('failed', 'expired', 'cancelled'))),
    -- Nobody is told "stored" without a stored version.
    CHECK (credential_id IS NOT NULL OR state NOT IN ('delivering', 'completed')),
    CHECK (lease_owner = '' OR last_heartbeat IS NOT NULL)
) STRICT;
CREATE INDEX auth_sessions_by_user ON auth_sessions (user_id, created_at);
CREATE INDEX auth_sessions_by_state ON auth_sessions (state);
CREATE INDEX auth_sessions_open ON auth_sessions (created_at)
    WHERE state NOT IN ('completed', 'failed', 'expired', 'cancelled');

CREATE TABLE vms (
    id           TEXT    NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 8 AND 32 AND id NOT GLOB '*[^a-z0-9]*'),
    user_id      TEXT    REFERENCES users (id),
    session_id   TEXT,
    kind         TEXT    NOT NULL CHECK (kind IN ('browser', 'cli')),
    driver       TEXT    NOT NULL CHECK (length(driver) BETWEEN 1 AND 32),
    state        TEXT    NOT NULL CHECK (state IN ('creating', 'running', 'destroying', 'destroyed', 'failed')),
    ref          BLOB    CHECK (length(ref) <= 65536),
    image_id     TEXT    NOT NULL CHECK (length(image_id) <= 200),
    restored     INTEGER NOT NULL CHECK (restored IN (0, 1)),
    reason       TEXT    NOT NULL CHECK (length(reason) <= 1000),
    created_at   INTEGER NOT NULL,
    ready_at     INTEGER,
    destroyed_at INTEGER,
    UNIQUE (id, user_id),
    FOREIGN KEY (session_id, user_id) REFERENCES auth_sessions (id, user_id),
    CHECK (kind = 'browser' OR (user_id IS NOT NULL AND session_id IS NULL)),
    CHECK (session_id IS NULL OR user_id IS NOT NULL),
    CHECK ((destroyed_at IS NOT NULL) = (state IN ('destroyed', 'failed')))
) STRICT;
CREATE UNIQUE INDEX vms_one_cli ON vms (user_id)
    WHERE kind = 'cli' AND state NOT IN ('destroyed', 'failed');
CREATE INDEX vms_live ON vms (created_at) WHERE state NOT IN ('destroyed', 'failed');
CREATE INDEX vms_by_user ON vms (user_id, created_at);
CREATE INDEX vms_by_session ON vms (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX vms_by_kind ON vms (kind, state);

-- A deleted version keeps its row, without any of its content, so that its
-- number is never given out again.
CREATE TABLE provider_credentials (
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
    CHECK (deleted_at IS NULL OR (active = 0 AND account = '' AND length(wrapped_dek) = 0 AND length(ciphertext) = 0)),
    CHECK (deleted_at IS NOT NULL OR (length(wrapped_dek) > 0 AND length(ciphertext) > 0))
) STRICT;
CREATE UNIQUE INDEX provider_credentials_active ON provider_credentials (user_id, provider) WHERE active = 1;
CREATE INDEX provider_credentials_by_kek ON provider_credentials (kek_id) WHERE deleted_at IS NULL;

-- Key ids that nothing may be sealed with any more: written in the moment in
-- which no row names them, before the key itself is thrown away.
CREATE TABLE retired_keks (
    kek_id     TEXT    NOT NULL PRIMARY KEY CHECK (length(kek_id) BETWEEN 1 AND 64),
    retired_at INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
    seq        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    session_id TEXT,
    user_id    TEXT    NOT NULL REFERENCES users (id),
    kind       TEXT    NOT NULL CHECK (kind IN (
        'state', 'progress', 'log', 'machine_created', 'machine_destroyed',
        'credential_stored', 'credential_delivered', 'credential_deleted')),
    state      TEXT    NOT NULL CHECK (state IN ('',
        'requested', 'starting', 'waiting', 'capturing', 'storing', 'delivering',
        'completed', 'failed', 'expired', 'cancelled')),
    reason     TEXT    NOT NULL CHECK (length(reason) <= 40 AND reason NOT GLOB '*[^a-z_]*'),
    message    TEXT    NOT NULL CHECK (length(message) <= 4096),
    at         INTEGER NOT NULL,
    FOREIGN KEY (session_id, user_id) REFERENCES auth_sessions (id, user_id),
    CHECK (kind <> 'state' OR (session_id IS NOT NULL AND state <> ''))
) STRICT;
CREATE INDEX events_by_user ON events (user_id, seq);
CREATE INDEX events_by_session ON events (session_id, seq) WHERE session_id IS NOT NULL;

-- Append-only: each row's hash covers its fields and the hash before it.
CREATE TABLE audit (
    seq           INTEGER NOT NULL PRIMARY KEY,
    at            INTEGER NOT NULL,
    kind          TEXT    NOT NULL CHECK (kind IN ('stored', 'delivered', 'deleted', 'rewrapped')),
    credential_id TEXT    NOT NULL REFERENCES provider_credentials (id),
    user_id       TEXT    NOT NULL,
    provider      TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    sha256        BLOB    NOT NULL CHECK (length(sha256) = 32),
    detail        TEXT    NOT NULL CHECK (length(detail) <= 400),
    prev_hash     BLOB    NOT NULL UNIQUE CHECK (length(prev_hash) = 32),
    hash          BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX audit_by_credential ON audit (credential_id, seq);
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
