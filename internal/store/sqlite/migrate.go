package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// applicationID marks the file as Anteroom's ("Ante"), so that another
// program's database is not taken for an empty one.
const applicationID = 0x416e7465

// migrate brings the schema up to date: each file in a transaction of its own,
// which also raises user_version, so that a kill between two is harmless.
func (db *DB) migrate(ctx context.Context) error {
	files, err := migrations(migrationFiles)
	if err != nil {
		return err
	}
	// Looked at before anything is written, the journal mode included.
	have, err := db.version(ctx, db.writer)
	if err != nil {
		return fmt.Errorf("store: read the schema's version: %w", mapError(err))
	}
	if have > len(files) {
		return fmt.Errorf("%w: its schema is %d, this program knows %d", store.ErrNewerSchema, have, len(files))
	}
	if err := db.switchToWAL(ctx); err != nil {
		return err
	}
	for have < len(files) {
		if have, err = db.step(ctx, files); err != nil {
			return err
		}
	}
	return nil
}

// switchToWAL is done by the first to open the file; it stays. SQLite does not
// wait here as it does elsewhere when another process is doing the same.
func (db *DB) switchToWAL(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, busyTimeout)
	defer cancel()
	for {
		var mode string
		err := db.writer.QueryRowContext(ctx, "PRAGMA journal_mode=WAL").Scan(&mode)
		if err == nil && mode != "wal" {
			return fmt.Errorf("store: the file system does not allow WAL: journal mode is %q", mode)
		}
		if err == nil {
			return nil
		}
		if !busy(err) {
			return fmt.Errorf("store: switch to WAL: %w", mapError(err))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("store: switch to WAL: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// step applies the next migration. Another process may be migrating too, so
// the version is read again under the write lock. Foreign keys are off, so that
// a table that others refer to can be made anew; instead of at each statement
// they are looked at before the commit.
func (db *DB) step(ctx context.Context, files []string) (have int, err error) {
	if err := db.foreignKeys(ctx, false); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.foreignKeys(context.WithoutCancel(ctx), true)) }()
	err = db.write(ctx, "migrate", func(tx *sql.Tx) error {
		var err error
		if have, err = db.version(ctx, tx); err != nil || have >= len(files) {
			return err
		}
		if _, err := tx.ExecContext(ctx, files[have]); err != nil {
			return fmt.Errorf("migration %d: %w", have+1, err)
		}
		var broken int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM pragma_foreign_key_check").Scan(&broken); err != nil {
			return fmt.Errorf("migration %d: %w", have+1, err)
		}
		if broken > 0 {
			return fmt.Errorf("migration %d: %w: %d rows name one that is not there", have+1, store.ErrInvalid, broken)
		}
		have++
		_, err = tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version=%d; PRAGMA application_id=%d", have, applicationID))
		return err
	})
	return have, err
}

// foreignKeys switches the checks of the writer's one connection, which cannot
// be done inside a transaction.
func (db *DB) foreignKeys(ctx context.Context, on bool) error {
	if _, err := db.writer.ExecContext(ctx, fmt.Sprintf("PRAGMA foreign_keys=%t", on)); err != nil {
		return fmt.Errorf("store: foreign keys: %w", mapError(err))
	}
	return nil
}

// version returns the schema's version; 0 is an empty file.
func (db *DB) version(ctx context.Context, q querier) (int, error) {
	var version, app, tables int
	err := q.QueryRowContext(ctx, `SELECT
		(SELECT user_version FROM pragma_user_version),
		(SELECT application_id FROM pragma_application_id),
		(SELECT count(*) FROM sqlite_master)`).Scan(&version, &app, &tables)
	if err != nil {
		return 0, err
	}
	if app != applicationID && (tables > 0 || app != 0) {
		return 0, fmt.Errorf("%w: the file is another program's database", store.ErrInvalid)
	}
	return version, nil
}

// migrations returns the files' texts, in order; they are numbered from 0001
// without gaps, so that the count is the newest version.
func migrations(fsys fs.FS) ([]string, error) {
	names, err := fs.Glob(fsys, "migrations/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	texts := make([]string, 0, len(names))
	for i, name := range names {
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		if n, err := strconv.Atoi(number); err != nil || n != i+1 {
			return nil, fmt.Errorf("store: migration %s is not number %d", name, i+1)
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		texts = append(texts, string(text))
	}
	return texts, nil
}
