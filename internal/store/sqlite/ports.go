package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/anteroom/anteroom/internal/store"
)

const portColumns = "host, port, state, user_id, exit_address, reason, assigned_at, rest_until, checked_at"

func scanPort(s scanner) (store.Port, error) {
	var p store.Port
	var userID sql.NullString
	var assigned, rest, checked stamp
	err := s.Scan(&p.Host, &p.Port, &p.State, &userID, &p.ExitAddress, &p.Reason, &assigned, &rest, &checked)
	p.UserID = userID.String
	p.AssignedAt, p.RestUntil, p.CheckedAt = assigned.time(), rest.time(), checked.time()
	return p, err
}

// SyncPorts makes rows for the configuration's ports, and removes those of
// ports that are not in it any more and that nobody has. A port that somebody
// has keeps its row: its user is told, and not moved in silence.
func (db *DB) SyncPorts(ctx context.Context, keys []store.PortKey) error {
	return db.write(ctx, "take over upstream ports", func(tx *sql.Tx) error {
		if _, err := exec(ctx, tx, "CREATE TEMP TABLE configured (host TEXT, port INTEGER, PRIMARY KEY (host, port)) WITHOUT ROWID"); err != nil {
			return err
		}
		for _, k := range keys {
			if _, err := exec(ctx, tx, "INSERT INTO configured VALUES (?, ?)", k.Host, k.Port); err != nil {
				return err
			}
		}
		for _, q := range []string{
			"DELETE FROM proxy_ports WHERE user_id IS NULL AND (host, port) NOT IN (SELECT host, port FROM configured)",
			"INSERT INTO proxy_ports (host, port, state, exit_address, reason) SELECT host, port, 'free', '', '' FROM configured WHERE true ON CONFLICT DO NOTHING",
			"DROP TABLE configured",
		} {
			if _, err := exec(ctx, tx, q); err != nil {
				return err
			}
		}
		return nil
	})
}

// Ports returns all ports, in order.
func (db *DB) Ports(ctx context.Context) ([]store.Port, error) {
	all, err := many(ctx, db.reader, "upstream ports", scanPort, "SELECT "+portColumns+" FROM proxy_ports ORDER BY host, port")
	if err != nil {
		return nil, err
	}
	at := make(map[store.PortKey]*store.Port, len(all))
	for i := range all {
		at[all[i].PortKey] = &all[i]
	}
	err = each(ctx, db.reader, func(s scanner) error {
		var k store.PortKey
		var provider, name string
		if err := s.Scan(&k.Host, &k.Port, &provider, &name); err != nil {
			return err
		}
		if p := at[k]; p != nil {
			if p.Refuses == nil {
				p.Refuses = map[string]string{}
			}
			p.Refuses[provider] = name
		}
		return nil
	}, "SELECT host, port, provider, name FROM proxy_port_refusals")
	if err != nil {
		return nil, fmt.Errorf("store: upstream ports: %w", mapError(err))
	}
	return all, nil
}

// PortOf returns the port that a user has, in whatever state, or
// store.ErrNotFound.
func (db *DB) PortOf(ctx context.Context, userID string) (store.Port, error) {
	return portOf(ctx, db.reader, userID)
}

func portOf(ctx context.Context, q querier, userID string) (store.Port, error) {
	return one(ctx, q, "upstream port", scanPort, "SELECT "+portColumns+" FROM proxy_ports WHERE user_id = ?", userID)
}

// ClaimPort returns the port that a user has, or gives them one: the free one
// that has been so for longest, or whose rest is over, and that is not known to
// refuse the provider since a time. claimed says that it is new. One port is
// never given to two users, nor two to one, whoever else claims at the same
// time. store.ErrNoPort if none is left.
func (db *DB) ClaimPort(ctx context.Context, userID, provider string, refusedSince time.Time) (port store.Port, claimed bool, err error) {
	err = db.write(ctx, "claim an upstream port", func(tx *sql.Tx) error {
		var err error
		if port, err = portOf(ctx, tx, userID); !errors.Is(err, store.ErrNotFound) {
			return err
		}
		now := ms(db.now())
		port, err = scanPort(tx.QueryRowContext(ctx, `UPDATE proxy_ports
			SET state = 'assigned', user_id = ?, assigned_at = ?, rest_until = NULL, checked_at = NULL, exit_address = '', reason = ''
			WHERE (host, port) = (SELECT host, port FROM proxy_ports AS p
				WHERE (state = 'free' OR state = 'resting' AND rest_until <= ?) AND NOT EXISTS (
					SELECT 1 FROM proxy_port_refusals AS r
					WHERE r.host = p.host AND r.port = p.port AND r.provider = ? AND r.at > ?)
				ORDER BY coalesce(rest_until, 0), host, port LIMIT 1)
			RETURNING `+portColumns, userID, now, now, provider, refusedSince.UnixMilli()))
		if errors.Is(err, sql.ErrNoRows) {
			return store.ErrNoPort
		}
		claimed = err == nil
		return err
	})
	if err != nil {
		return store.Port{}, false, err
	}
	return port, claimed, nil
}

// countPorts counts upstream ports; one whose rest is over is free.
func (db *DB) countPorts(ctx context.Context, q querier, out *store.Stats) error {
	return each(ctx, q, func(s scanner) error {
		if out.Ports == nil {
			out.Ports = map[store.PortState]int64{store.PortFree: 0, store.PortAssigned: 0, store.PortResting: 0, store.PortQuarantined: 0}
		}
		var state store.PortState
		var n int64
		err := s.Scan(&state, &n)
		out.Ports[state] = n
		return err
	}, "SELECT iif(state = 'resting' AND rest_until <= ?, 'free', state) AS now, count(*) FROM proxy_ports GROUP BY now", ms(db.now()))
}

// AssignPort moves a user to a port that nobody has, whether it rests or is in
// quarantine. The one that they had rests for a while. store.ErrConflict if
// somebody else has it, store.ErrNotFound if there is no such port or user.
// Assigning the port that they have takes it out of quarantine and forgets its
// exit address.
func (db *DB) AssignPort(ctx context.Context, userID string, key store.PortKey, rest time.Duration) (store.Port, error) {
	var out store.Port
	err := db.write(ctx, "assign an upstream port", func(tx *sql.Tx) error {
		is, err := portIn(ctx, tx, key)
		if err != nil {
			return err
		}
		if is.UserID != "" && is.UserID != userID {
			return fmt.Errorf("%s: another user has it: %w", key, store.ErrConflict)
		}
		had, err := portOf(ctx, tx, userID)
		if err == nil && had.PortKey != key {
			err = db.release(ctx, tx, had.PortKey, rest)
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		out, err = scanPort(tx.QueryRowContext(ctx, `UPDATE proxy_ports
			SET state = 'assigned', user_id = ?, assigned_at = ?, rest_until = NULL, checked_at = NULL, exit_address = '', reason = ''
			WHERE host = ? AND port = ? RETURNING `+portColumns, userID, ms(db.now()), key.Host, key.Port))
		return err
	})
	if err != nil {
		return store.Port{}, err
	}
	return out, nil
}

func portIn(ctx context.Context, q querier, key store.PortKey) (store.Port, error) {
	return one(ctx, q, "upstream port", scanPort, "SELECT "+portColumns+" FROM proxy_ports WHERE host = ? AND port = ?", key.Host, key.Port)
}

// ReleasePort takes a port from whoever has it, and out of quarantine. It is
// given to nobody for rest; 0 frees it at once. store.ErrNotFound if there is
// none.
func (db *DB) ReleasePort(ctx context.Context, key store.PortKey, rest time.Duration) error {
	return db.write(ctx, "release an upstream port", func(tx *sql.Tx) error {
		return db.release(ctx, tx, key, rest)
	})
}

func (db *DB) release(ctx context.Context, tx *sql.Tx, key store.PortKey, rest time.Duration) error {
	state, until := store.PortFree, time.Time{}
	if rest > 0 {
		state, until = store.PortResting, db.now().Add(rest)
	}
	return changePort(ctx, tx, key, "state = ?, user_id = NULL, exit_address = '', reason = '', assigned_at = NULL, checked_at = NULL, rest_until = ?",
		string(state), ms(until))
}

// QuarantinePort puts a port out of use until an administrator assigns or
// releases it, or pins another address. store.ErrNotFound if there is none.
func (db *DB) QuarantinePort(ctx context.Context, key store.PortKey, reason string) error {
	return db.write(ctx, "quarantine an upstream port", func(tx *sql.Tx) error {
		return changePort(ctx, tx, key, "state = 'quarantined', rest_until = NULL, reason = ?", store.Clip(reason, store.MaxDetail))
	})
}

func changePort(ctx context.Context, tx *sql.Tx, key store.PortKey, set string, values ...any) error {
	n, err := exec(ctx, tx, "UPDATE proxy_ports SET "+set+" WHERE host = ? AND port = ?", append(values, key.Host, key.Port)...)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s: %w", key, store.ErrNotFound)
	}
	return err
}

// SawExit notes that a user was seen to come from an address through the port
// that they have. The first address that is seen is pinned; the port is
// returned with the one that is, so that the caller can tell another.
// store.ErrNotFound if the user does not have that port, in use, any more.
func (db *DB) SawExit(ctx context.Context, userID string, key store.PortKey, address string) (store.Port, error) {
	return db.exit(ctx, "note an exit address", `UPDATE proxy_ports
		SET exit_address = iif(exit_address = '', ?1, exit_address), checked_at = iif(exit_address IN ('', ?1), ?2, checked_at)
		WHERE user_id = ?3 AND host = ?4 AND port = ?5 AND state = 'assigned' RETURNING `+portColumns,
		address, ms(db.now()), userID, key.Host, key.Port)
}

// PinExit has a port that somebody has be the one with this exit address ("":
// the next that is seen), and takes it out of quarantine. store.ErrNotFound if
// nobody has it.
func (db *DB) PinExit(ctx context.Context, key store.PortKey, address string) (store.Port, error) {
	return db.exit(ctx, "pin an exit address", `UPDATE proxy_ports SET exit_address = ?, state = 'assigned', reason = ''
		WHERE host = ? AND port = ? AND user_id IS NOT NULL RETURNING `+portColumns, address, key.Host, key.Port)
}

func (db *DB) exit(ctx context.Context, what, query string, args ...any) (store.Port, error) {
	var out store.Port
	err := db.write(ctx, what, func(tx *sql.Tx) error {
		var err error
		out, err = scanPort(tx.QueryRowContext(ctx, query, args...))
		return err
	})
	if err != nil {
		return store.Port{}, err
	}
	return out, nil
}

// PortRefuses notes that a port's proxy refuses a name that a provider needs;
// with no name, that it refuses none. store.ErrNotFound if there is no such
// port.
func (db *DB) PortRefuses(ctx context.Context, key store.PortKey, provider, name string) error {
	return db.write(ctx, "note what an upstream port refuses", func(tx *sql.Tx) error {
		if name == "" {
			_, err := exec(ctx, tx, "DELETE FROM proxy_port_refusals WHERE host = ? AND port = ? AND provider = ?", key.Host, key.Port, provider)
			return err
		}
		_, err := exec(ctx, tx, `INSERT INTO proxy_port_refusals (host, port, provider, name, at) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET name = excluded.name, at = excluded.at`, key.Host, key.Port, provider, name, ms(db.now()))
		return err
	})
}
