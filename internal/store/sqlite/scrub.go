package sqlite

import (
	"context"
	"time"
)

// scrubTime bounds how long a deletion waits for the WAL's readers.
const scrubTime = 5 * time.Second

// rescrub empties the WAL if deleted secrets may be in it. The deletion itself
// is committed already, so this is not undone by the caller's context, and not
// being able to (another process reads) is no error: it stays due.
func (db *DB) rescrub(ctx context.Context) {
	if !db.unscrubbed.CompareAndSwap(true, false) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), scrubTime)
	defer cancel()
	var busy, frames, moved int
	err := db.writer.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved)
	if err != nil || busy != 0 {
		db.unscrubbed.Store(true)
		db.log.WarnContext(ctx, "the write-ahead log was not emptied after a deletion; it will be tried again", "error", err)
	}
}
