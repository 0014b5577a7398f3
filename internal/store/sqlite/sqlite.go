// Package sqlite keeps Anteroom's rows in one SQLite file.
//
// Writes go through one connection, each in a BEGIN IMMEDIATE transaction that
// is on the disk when the method returns (WAL, synchronous=FULL); reads go
// through a small pool and never wait for a writer. Several processes may have
// the same file open. After an error nothing of the call was written.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"github.com/anteroom/anteroom/internal/store"
)

const (
	maxReaders  = 4
	busyTimeout = 10 * time.Second
)

// Config is what Open needs.
type Config struct {
	Path   string           // of the database file; its directory must exist
	Logger *slog.Logger     // nil: nothing is logged
	Now    func() time.Time // nil: time.Now
}

// DB is an open database. All methods may be called concurrently.
type DB struct {
	writer *sql.DB
	reader *sql.DB
	log    *slog.Logger
	clock  func() time.Time
	// unscrubbed says that deleted secrets may still be in the WAL file,
	// because a reader kept it from being emptied.
	unscrubbed atomic.Bool
}

// Open opens the database, making it (mode 0600) and bringing its schema up to
// date where needed. store.ErrNewerSchema if a newer program wrote it: then it
// was not touched. The caller closes.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	db := &DB{log: cfg.Logger, clock: cfg.Now}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	if db.clock == nil {
		db.clock = time.Now
	}
	path, err := filepath.Abs(cfg.Path)
	if err != nil || cfg.Path == "" {
		return nil, fmt.Errorf("store: no usable path %q: %w", cfg.Path, store.ErrInvalid)
	}
	// SQLite gives the WAL and its index the mode of the file itself.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: open: %w", mapError(err))
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("store: open: %w", err)
	}
	if err := db.connect(path); err != nil {
		return nil, err
	}
	if err := db.migrate(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	db.unscrubbed.Store(true) // by a process that was killed
	db.rescrub(ctx)
	return db, nil
}

func (db *DB) connect(path string) error {
	common := []string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"foreign_keys(1)", "trusted_schema(0)", "temp_store(2)",
	}
	w, err := connector(path, "immediate", append(common, "synchronous(2)", "secure_delete(1)"))
	if err != nil {
		return err
	}
	r, err := connector(path, "deferred", append(common, "query_only(1)"))
	if err != nil {
		return err
	}
	db.writer, db.reader = sql.OpenDB(w), sql.OpenDB(r)
	db.writer.SetMaxOpenConns(1)
	db.reader.SetMaxOpenConns(maxReaders)
	db.reader.SetMaxIdleConns(maxReaders)
	return nil
}

func connector(path, lock string, pragmas []string) (driver.Connector, error) {
	q := url.Values{"_txlock": {lock}, "_pragma": pragmas}
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	c, err := sqlite.NewConnector(u.String())
	if err != nil {
		return nil, fmt.Errorf("store: connect: %w", err)
	}
	return c, nil
}

// Close waits for running calls and closes the file.
func (db *DB) Close() error {
	db.rescrub(context.Background())
	return errors.Join(db.reader.Close(), db.writer.Close())
}

// now is the time as it is stored.
func (db *DB) now() time.Time { return db.clock().UTC().Truncate(time.Millisecond) }

// write runs f in one transaction: committed and on the disk, or nothing.
func (db *DB) write(ctx context.Context, what string, f func(*sql.Tx) error) error {
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("store: %s: %w", what, mapError(err))
	}
	err = f(tx)
	if err == nil {
		err = tx.Commit()
	} else if rb := tx.Rollback(); rb != nil && !errors.Is(rb, sql.ErrTxDone) && !noTransaction(rb) {
		err = errors.Join(err, rb)
	}
	if err != nil {
		return fmt.Errorf("store: %s: %w", what, mapError(err))
	}
	return nil
}

// querier is a pool or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// scanner is a row to be read.
type scanner interface{ Scan(dest ...any) error }

// one reads one row; store.ErrNotFound if there is none.
func one[T any](ctx context.Context, q querier, what string, scan func(scanner) (T, error), query string, args ...any) (T, error) {
	v, err := scan(q.QueryRowContext(ctx, query, args...))
	if err != nil {
		var zero T
		return zero, fmt.Errorf("store: %s: %w", what, mapError(err))
	}
	return v, nil
}

// many reads all rows; none is an empty slice, not nil.
func many[T any](ctx context.Context, q querier, what string, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	out := []T{}
	err := each(ctx, q, func(s scanner) error {
		v, err := scan(s)
		out = append(out, v)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", what, mapError(err))
	}
	return out, nil
}

// each calls f for every row, until it returns an error.
func each(ctx context.Context, q querier, f func(scanner) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// exec runs one statement and tells how many rows it changed.
func exec(ctx context.Context, tx *sql.Tx, query string, args ...any) (int64, error) {
	res, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// ms is a time as it is stored: NULL for the zero time.
func ms(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// stamp reads such a time.
type stamp struct{ sql.NullInt64 }

func (s stamp) time() time.Time {
	if !s.Valid {
		return time.Time{}
	}
	return time.UnixMilli(s.Int64).UTC()
}

// null is a text as it is stored where an empty one means that there is none.
func null[S ~string](s S) any {
	if s == "" {
		return nil
	}
	return string(s)
}

// clampLimit keeps a caller's limit between 1 and most; none given means most.
func clampLimit(n, most int) int {
	if n <= 0 || n > most {
		return most
	}
	return n
}

// stored is a caller's time as it comes back from the database.
func stored(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Millisecond)
}
