package sqlite

import (
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

func TestMigrationsAreNumbered(t *testing.T) {
	for name, files := range map[string][]string{"gap": {"0001_a.sql", "0003_b.sql"}, "twice": {"0001_a.sql", "0001_b.sql"}, "no number": {"a.sql"}} {
		fsys := fstest.MapFS{}
		for _, f := range files {
			fsys["migrations/"+f] = &fstest.MapFile{}
		}
		if _, err := migrations(fsys); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	files, err := migrations(migrationFiles)
	if err != nil || len(files) == 0 {
		t.Fatal(len(files), err)
	}
}

// TestMigrationFails: a migration that fails leaves nothing of itself.
func TestMigrationFails(t *testing.T) {
	db := openAt(t, newPath(t))
	files, err := migrations(migrationFiles)
	if err != nil {
		t.Fatal(err)
	}
	have := len(files)
	if _, err := db.step(t.Context(), append(files, "CREATE TABLE half (x INTEGER); INSERT INTO nowhere VALUES (1);")); err == nil {
		t.Fatal("a broken migration passed")
	}
	got, err := db.version(t.Context(), db.reader)
	if err != nil || got != have {
		t.Fatalf("version is %d (%v), want %d", got, err, have)
	}
	var n int
	if err := db.reader.QueryRowContext(t.Context(), "SELECT count(*) FROM sqlite_master WHERE name = 'half'").Scan(&n); err != nil || n != 0 {
		t.Fatalf("half of it is there: %d %v", n, err)
	}
	if got, err := db.step(t.Context(), append(files, "CREATE TABLE whole (x INTEGER)")); err != nil || got != have+1 {
		t.Fatalf("the mended migration: version %d, %v", got, err)
	}
}

// TestMigrateReplaced: a database of the second schema, in which versions that
// were replaced still have their content, keeps all it knows but that.
func TestMigrateReplaced(t *testing.T) {
	path := newPath(t)
	files, err := migrations(migrationFiles)
	if err != nil {
		t.Fatal(err)
	}
	old := &DB{log: slog.New(slog.DiscardHandler), clock: time.Now}
	if err := old.connect(path); err != nil {
		t.Fatal(err)
	}
	for want := 1; want <= 2; want++ {
		if have, err := old.step(t.Context(), files[:2]); err != nil || have != want {
			t.Fatal(have, err)
		}
	}
	u, err := old.CreateUser(t.Context(), "u")
	if err != nil {
		t.Fatal(err)
	}
	insert := func(version int, active bool, text string) {
		s := storing(t, old, "u")
		c := sealedFor(s, version, []byte(text))
		c.Account = "person@example.com"
		err := old.write(t.Context(), "test", func(tx *sql.Tx) error {
			_, err := exec(t.Context(), tx, "INSERT INTO provider_credentials ("+credentialColumns+`)
				VALUES (?, ?, ?, ?, ?, ?, ?, NULL, 1, 2, 'machine1', ?, ?, ?, ?, ?)`, c.ID, c.UserID, c.Provider, c.Version, active, string(s.ID),
				c.Account, c.Sealed.Schema, c.Sealed.KEKID, c.Sealed.WrappedDEK, c.Sealed.Ciphertext, c.Sealed.SHA256[:])
			if err != nil {
				return err
			}
			_, err = exec(t.Context(), tx, "UPDATE auth_sessions SET state = 'delivering', credential_id = ? WHERE id = ?", c.ID, string(s.ID))
			if err != nil {
				return err
			}
			return old.audit(t.Context(), tx, store.AuditStored, c, "")
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	insert(1, false, "first-ciphertext-marker")
	insert(2, true, "second-ciphertext-marker")
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	db := openAt(t, path)
	report, err := db.VerifyAudit(t.Context())
	if err != nil || report.Entries != 2 || report.Credentials != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	if inFiles(t, path, "first-ciphertext-marker") || !inFiles(t, path, "second-ciphertext-marker") {
		t.Error("the content of the replaced version is there, or that of the active one is not")
	}
	sessions, err := db.SessionsOf(t.Context(), u.ID, 0, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sessions {
		c, err := db.Credential(t.Context(), s.CredentialID)
		if err != nil || c.SessionID != s.ID || c.Account != "person@example.com" || c.DeliveredTo != "machine1" {
			t.Errorf("%+v, %v", c, err)
		}
	}
	err = db.write(t.Context(), "test", func(tx *sql.Tx) error {
		_, err := exec(t.Context(), tx, "UPDATE auth_sessions SET credential_id = 'none'")
		return err
	})
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a session of a credential that is not there: %v", err)
	}
}

// TestMigrationLosesRows: a migration after which a row names one that is not
// there leaves nothing of itself.
func TestMigrationLosesRows(t *testing.T) {
	db := openAt(t, newPath(t))
	commit(t, db, storing(t, db, "u"), 1, []byte("one"))
	files, err := migrations(migrationFiles)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.step(t.Context(), append(files, "DELETE FROM provider_credentials")); !errors.Is(err, store.ErrInvalid) {
		t.Fatalf("the error is %v", err)
	}
	if report, err := db.VerifyAudit(t.Context()); err != nil || report.Credentials != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
}

// TestAuditTamper changes the file behind the program's back.
func TestAuditTamper(t *testing.T) {
	for name, change := range map[string]string{
		"entry's text":        "DROP TRIGGER audit_no_update; UPDATE audit SET detail = 'x' WHERE seq = 2",
		"entry removed":       "DROP TRIGGER audit_no_delete; DELETE FROM audit WHERE seq = 2",
		"last entry removed":  "DROP TRIGGER audit_no_delete; DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)",
		"ciphertext":          "UPDATE provider_credentials SET ciphertext = x'00' WHERE version = 2",
		"digest too":          "UPDATE provider_credentials SET ciphertext = CAST('one' AS BLOB), sha256 = (SELECT sha256 FROM provider_credentials WHERE version = 1) WHERE version = 2",
		"older one active":    "UPDATE provider_credentials SET active = 0, wrapped_dek = x'', ciphertext = x''; UPDATE provider_credentials SET active = 1, wrapped_dek = x'00', ciphertext = CAST('one' AS BLOB) WHERE version = 1",
		"older one's content": "PRAGMA ignore_check_constraints=1; UPDATE provider_credentials SET ciphertext = CAST('one' AS BLOB) WHERE version = 1",
		"older one's key":     "PRAGMA ignore_check_constraints=1; UPDATE provider_credentials SET wrapped_dek = x'00' WHERE version = 1",
		"content gone":        "PRAGMA ignore_check_constraints=1; UPDATE provider_credentials SET wrapped_dek = x'', ciphertext = x'' WHERE version = 2",
		"owner":               "PRAGMA foreign_keys=0; UPDATE provider_credentials SET user_id = 'other' WHERE version = 2",
		"row removed":         "PRAGMA foreign_keys=0; DELETE FROM provider_credentials WHERE version = 1",
		"deleted one revived": "UPDATE provider_credentials SET deleted_at = NULL, active = 1, wrapped_dek = x'00', ciphertext = x'00' WHERE provider = 'codex'",
		"row added": `INSERT INTO provider_credentials SELECT 'new', user_id, provider, 9, 0, NULL, '', NULL, 0, NULL, '', NULL, 1, 'k', x'', x'', sha256
			FROM provider_credentials WHERE version = 1`,
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			db := openAt(t, path)
			commit(t, db, storing(t, db, "u"), 1, []byte("one"))
			second := commit(t, db, storing(t, db, "u"), 2, []byte("two"))
			if err := db.MarkDelivered(t.Context(), second.ID, "machine"); err != nil {
				t.Fatal(err)
			}
			deleted := commit(t, db, storing(t, db, "other"), 1, []byte("three"))
			if err := db.DeleteCredential(t.Context(), deleted.UserID, deleted.ID); err != nil {
				t.Fatal(err)
			}
			if _, err := db.VerifyAudit(t.Context()); err != nil {
				t.Fatal(err)
			}
			change = strings.ReplaceAll(change, "provider = 'codex'", "id = '"+deleted.ID+"'")
			if strings.Contains(change, "version = 2") || strings.Contains(change, "version = 1") {
				change = strings.ReplaceAll(change, "WHERE version", "WHERE user_id = '"+second.UserID+"' AND version")
			}
			raw(t, path, change)
			if _, err := db.VerifyAudit(t.Context()); !errors.Is(err, store.ErrAudit) {
				t.Fatalf("the error is %v, want %v", err, store.ErrAudit)
			}
		})
	}
}

// TestConstraints: the schema itself refuses what the program must not write.
func TestConstraints(t *testing.T) {
	path := newPath(t)
	db := openAt(t, path)
	s := storing(t, db, "u")
	for name, query := range map[string]string{
		"unknown state":           "UPDATE auth_sessions SET state = 'sleeping'",
		"failed without reason":   "UPDATE auth_sessions SET state = 'failed'",
		"reason without failure":  "UPDATE auth_sessions SET reason = 'internal'",
		"delivering with nothing": "UPDATE auth_sessions SET state = 'delivering'",
		"a credential of nobody":  "UPDATE auth_sessions SET credential_id = 'none'",
		"lease without heartbeat": "UPDATE auth_sessions SET lease_owner = 'a'",
		"text for a time":         "UPDATE auth_sessions SET deadline = 'soon'",
		"a short hash":            "INSERT INTO tickets VALUES (x'00', (SELECT id FROM users), 'viewer', 's', 1)",
	} {
		err := db.write(t.Context(), "test", func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), query)
			return err
		})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	is, err := db.Session(t.Context(), s.ID)
	if err != nil || is != s {
		t.Errorf("the session is %+v (%v), want %+v", is, err, s)
	}
	for _, state := range session.States() {
		if !strings.Contains(migrationText(t), "'"+string(state)+"'") {
			t.Errorf("the schema does not know the state %s", state)
		}
	}
}

func migrationText(t *testing.T) string {
	t.Helper()
	files, err := migrations(migrationFiles)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(files, "\n")
}

// TestPlans: the queries that run all the time use their index, and sort
// nothing, however many sessions there are.
func TestPlans(t *testing.T) {
	db := openAt(t, newPath(t))
	for query, index := range map[string]string{
		"SELECT id FROM auth_sessions WHERE state NOT IN " + final + " ORDER BY created_at":                                                                                 "auth_sessions_open",
		"SELECT id FROM auth_sessions WHERE user_id = 'u' AND created_at < 5 ORDER BY created_at DESC LIMIT 10":                                                             "auth_sessions_by_user",
		"SELECT id FROM auth_sessions WHERE user_id = 'u' AND idempotency_key = 'k'":                                                                                        "idempotency_key",
		"SELECT count(*) FROM auth_sessions WHERE +user_id = 'u' AND state NOT IN " + final:                                                                                 "auth_sessions_open",
		"SELECT state, count(*) FROM auth_sessions GROUP BY state":                                                                                                          "auth_sessions_by_state",
		"SELECT id FROM auth_sessions WHERE state IN ('starting', 'waiting', 'capturing', 'storing', 'delivering')":                                                         "auth_sessions_by_state",
		strings.ReplaceAll(aheadQuery, "?", "'s'"):                                                                                                                          "auth_sessions_by_state",
		"SELECT session_id FROM vms WHERE state NOT IN " + gone + " AND +session_id IS NOT NULL":                                                                            "vms_live",
		"SELECT id FROM vms WHERE state NOT IN " + gone + " ORDER BY created_at":                                                                                            "vms_live",
		"SELECT id FROM vms WHERE user_id = 'u' AND kind = 'cli' AND state NOT IN " + gone:                                                                                  "vms_one_cli",
		"SELECT * FROM events WHERE user_id = 'u' AND seq > 5 ORDER BY seq LIMIT 10":                                                                                        "events_by_user",
		"SELECT * FROM events WHERE session_id = 's' AND user_id = 'u' AND seq > 5 ORDER BY seq LIMIT 10":                                                                   "events_by_session",
		"SELECT coalesce(max(seq), 0) FROM events WHERE user_id = 'u'":                                                                                                      "events_by_user",
		"SELECT * FROM provider_credentials WHERE user_id = 'u' AND provider = 'p' AND active = 1":                                                                          "provider_credentials_active",
		"SELECT DISTINCT provider FROM provider_credentials WHERE user_id = 'u' AND delivered_to = 'm' AND deleted_at IS NOT NULL AND delivered_to <> '' ORDER BY provider": "provider_credentials_left_on",
		"SELECT coalesce(max(version), 0) + 1 FROM provider_credentials WHERE user_id = 'u' AND provider = 'p'":                                                             "provider_credentials",
		"SELECT id FROM tokens WHERE hash = x'00' AND (expires_at IS NULL OR expires_at > 5)":                                                                               "hash=?",
		"DELETE FROM tickets WHERE expires_at <= 5":                                                                                                                         "tickets_by_expiry",
		"DELETE FROM tokens WHERE expires_at <= 5":                                                                                                                          "tokens_by_expiry",
		"SELECT count(*) FROM provider_credentials WHERE kek_id = 'k' AND active = 1":                                                                                       "provider_credentials_by_kek",
	} {
		plan := ""
		err := each(t.Context(), db.reader, func(s scanner) error {
			var a, b, c int
			var line string
			err := s.Scan(&a, &b, &c, &line)
			plan += line + "; "
			return err
		}, "EXPLAIN QUERY PLAN "+query)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(plan, index) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s\n  plan: %s", query, plan)
		}
	}
}
