package store

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func entry() AuditEntry {
	return AuditEntry{Seq: 1, At: time.UnixMilli(1000), Kind: AuditStored, CredentialID: "c", UserID: "u", Provider: "p", Version: 1,
		SHA256: [32]byte{1}, Detail: "d"}
}

// TestAuditHash: every field changes the hash, and none can lend its neighbour
// a letter.
func TestAuditHash(t *testing.T) {
	seen := map[[32]byte]int{}
	for i, change := range []func(*AuditEntry){
		func(*AuditEntry) {},
		func(e *AuditEntry) { e.Seq++ },
		func(e *AuditEntry) { e.At = e.At.Add(time.Millisecond) },
		func(e *AuditEntry) { e.Kind = AuditDeleted },
		func(e *AuditEntry) { e.CredentialID = "d" },
		func(e *AuditEntry) { e.UserID = "v" },
		func(e *AuditEntry) { e.Provider = "q" },
		func(e *AuditEntry) { e.Version++ },
		func(e *AuditEntry) { e.SHA256[31]++ },
		func(e *AuditEntry) { e.Detail = "" },
		func(e *AuditEntry) { e.PrevHash[0]++ },
		func(e *AuditEntry) { e.CredentialID, e.UserID = "cu", "" },
		func(e *AuditEntry) { e.UserID, e.Provider = "up", "" },
		func(e *AuditEntry) { e.UserID, e.Provider = "", "up" },
	} {
		e := entry()
		change(&e)
		if other, ok := seen[e.ComputeHash()]; ok {
			t.Errorf("changes %d and %d have the same hash", other, i)
		}
		seen[e.ComputeHash()] = i
	}
	// Fixed for ever: the chains that exist depend on it.
	const want = "5b9bc39855f54250908e39328455befbef157d6127f6e58fa689874531be3192"
	if got := fmt.Sprintf("%x", entry().ComputeHash()); got != want {
		t.Errorf("the hash of a known entry is %s, was %s", got, want)
	}
}

func chain(entries ...AuditEntry) []AuditEntry {
	var prev [32]byte
	for i := range entries {
		entries[i].Seq, entries[i].PrevHash = int64(i+1), prev
		entries[i].Hash = entries[i].ComputeHash()
		prev = entries[i].Hash
	}
	return entries
}

// TestAuditStory: a chain whose hashes are right must also make sense.
func TestAuditStory(t *testing.T) {
	with := func(change func(*AuditEntry)) AuditEntry {
		e := entry()
		change(&e)
		return e
	}
	delivered := with(func(e *AuditEntry) { e.Kind = AuditDelivered })
	deleted := with(func(e *AuditEntry) { e.Kind = AuditDeleted })
	next := with(func(e *AuditEntry) { e.CredentialID, e.Version = "c2", 2 })
	for name, test := range map[string]struct {
		entries []AuditEntry
		good    bool
	}{
		"a life":                  {chain(entry(), delivered, next, delivered, deleted), true},
		"delivered before stored": {chain(delivered, entry()), false},
		"delivered after deleted": {chain(entry(), deleted, delivered), false},
		"deleted twice":           {chain(entry(), deleted, deleted), false},
		"stored twice":            {chain(entry(), entry()), false},
		"an older version":        {chain(next, entry()), false},
		"another digest":          {chain(entry(), with(func(e *AuditEntry) { e.Kind, e.SHA256[0] = AuditDelivered, 9 })), false},
		"another owner":           {chain(entry(), with(func(e *AuditEntry) { e.Kind, e.UserID = AuditDelivered, "v" })), false},
		"begins later":            {chain(entry(), delivered)[1:], false},
	} {
		v := NewAuditVerifier()
		var err error
		for _, e := range test.entries {
			if err == nil {
				err = v.Add(e)
			}
		}
		if test.good && err != nil || !test.good && !errors.Is(err, ErrAudit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
