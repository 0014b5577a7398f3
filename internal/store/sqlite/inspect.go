package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"modernc.org/sqlite"

	"github.com/anteroom/anteroom/internal/store"
)

// Inspection is what can be said of a database without changing it.
type Inspection struct {
	Schema int   // the version of its schema
	Known  int   // the newest that this program knows
	Sealed int64 // versions of credentials whose content is there
}

// Inspect looks at a database that exists, without changing it; a server may
// be using it. store.ErrNewerSchema, with what was found, if a newer program
// wrote it.
func Inspect(ctx context.Context, path string) (Inspection, error) {
	files, err := migrations(migrationFiles)
	if err != nil {
		return Inspection{}, err
	}
	out := Inspection{Known: len(files)}
	path, err = filepath.Abs(path)
	if err != nil {
		return out, fmt.Errorf("store: inspect: %w", err)
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"mode": {"ro"}, "_pragma": {"query_only(1)"}}.Encode()}
	c, err := sqlite.NewConnector(u.String())
	if err != nil {
		return out, fmt.Errorf("store: inspect: %w", err)
	}
	db := &DB{reader: sql.OpenDB(c)}
	defer func() { _ = db.reader.Close() }()
	if out.Schema, err = db.version(ctx, db.reader); err != nil {
		return out, fmt.Errorf("store: inspect: %w", mapError(err))
	}
	if out.Schema > out.Known {
		return out, fmt.Errorf("%w: its schema is %d, this program knows %d", store.ErrNewerSchema, out.Schema, out.Known)
	}
	if out.Schema == 0 {
		return out, nil
	}
	err = db.reader.QueryRowContext(ctx, "SELECT count(*) FROM provider_credentials WHERE active = 1").Scan(&out.Sealed)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return out, fmt.Errorf("store: inspect: %w", mapError(err))
	}
	return out, nil
}
