-- Who may administer what belongs to the whole server.
ALTER TABLE users ADD COLUMN admin INTEGER NOT NULL DEFAULT 0 CHECK (admin IN (0, 1));
UPDATE users SET admin = 1 WHERE id = (SELECT id FROM users ORDER BY created_at, id LIMIT 1);

-- Where the session's machine is seen to come from; empty if nobody was asked.
ALTER TABLE auth_sessions ADD COLUMN exit_address TEXT NOT NULL DEFAULT '' CHECK (length(exit_address) <= 64);

-- The upstream ports of the configuration, and who has which. A port in
-- quarantine keeps its user: nobody gets another address in silence.
CREATE TABLE proxy_ports (
    host         TEXT    NOT NULL CHECK (length(host) BETWEEN 1 AND 255),
    port         INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    state        TEXT    NOT NULL CHECK (state IN ('free', 'assigned', 'resting', 'quarantined')),
    user_id      TEXT    UNIQUE REFERENCES users (id),
    exit_address TEXT    NOT NULL CHECK (length(exit_address) <= 64),
    reason       TEXT    NOT NULL CHECK (length(reason) <= 1000),
    assigned_at  INTEGER,
    rest_until   INTEGER,
    checked_at   INTEGER,
    PRIMARY KEY (host, port),
    CHECK (state <> 'assigned' OR user_id IS NOT NULL),
    CHECK (state NOT IN ('free', 'resting') OR user_id IS NULL),
    CHECK ((state = 'resting') = (rest_until IS NOT NULL)),
    CHECK (user_id IS NOT NULL OR exit_address = '')
) STRICT, WITHOUT ROWID;

-- Which port's proxy refuses which name that a provider needs.
CREATE TABLE proxy_port_refusals (
    host     TEXT    NOT NULL,
    port     INTEGER NOT NULL,
    provider TEXT    NOT NULL CHECK (length(provider) BETWEEN 1 AND 32),
    name     TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    at       INTEGER NOT NULL,
    PRIMARY KEY (host, port, provider),
    FOREIGN KEY (host, port) REFERENCES proxy_ports (host, port) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
