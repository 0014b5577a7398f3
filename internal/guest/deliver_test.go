//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
)

func creds(token string, expires int) []guestapi.File {
	return []guestapi.File{
		{Name: "creds", Content: fmt.Appendf(nil, `{"token":%q,"expires":%d}`, token, expires)},
		{Name: "account", Content: []byte(`{"email":"ann@example.com"}`)},
	}
}

func deliverer(t *testing.T) (*Deliverer, *privateRig) {
	t.Helper()
	r := newPrivateRig(t, testUser(t), toolFile(t, nil))
	r.boot()
	d := NewDeliverer(r.user)
	d.inMemory = r.cfg.isMemory
	return d, r
}

func TestDeliver(t *testing.T) {
	d, r := deliverer(t)
	f := r.cfg.Files[0]
	deliver := func(id string, version int, files []guestapi.File) (guestapi.DeliveryAck, error) {
		return d.Deliver(guestapi.Delivery{CredentialID: id, Version: version, SessionID: "s-" + id, Provider: f, Files: files})
	}
	first := creds("one", 1900000000)
	for range 2 { // idempotent
		ack, err := deliver("c1", 1, first)
		if err != nil || ack != (guestapi.DeliveryAck{CredentialID: "c1", Version: 1, SHA256: guestapi.DeliveryHash(first)}) {
			t.Fatalf("%+v %v", ack, err)
		}
	}
	for _, name := range []string{".tool/creds.json", ".tool/account.json"} {
		info, err := os.Lstat(r.path(name))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
		if content, err := readFile(r.user.Home, name, r.user, 1000); err != nil { // by the owner, as well
			t.Errorf("%s: %q %v", name, content, err)
		}
	}
	// The tool refreshes: the same sign-in does not come back over it, whatever
	// version it is called.
	put(t, r.user, ".tool/creds.json", string(creds("refreshed", 1900000001)[0].Content))
	if ack, err := deliver("c1", 1, first); err != nil || !ack.Kept || ack.SHA256 != guestapi.DeliveryHash(first) {
		t.Errorf("%+v %v", ack, err)
	}
	if ack, err := d.Deliver(guestapi.Delivery{CredentialID: "c1b", Version: 2, SessionID: "s-c1", Provider: f, Files: first}); err != nil || !ack.Kept {
		t.Errorf("%+v %v", ack, err)
	}
	if got := r.read(".tool/creds.json"); !strings.Contains(got, "refreshed") {
		t.Errorf("the refreshed token is gone: %s", got)
	}
	if c, err := d.Collect(f); err != nil || !strings.Contains(string(c.Files[0].Content), "refreshed") || c.Account != "ann@example.com" {
		t.Errorf("collected %+v %v", c, err)
	}
	// What the tool broke is replaced.
	put(t, r.user, ".tool/creds.json", `{"token":"","expires":1900000009}`)
	if _, err := d.Collect(f); !errors.Is(err, provider.ErrCredential) {
		t.Errorf("collected a broken file: %v", err)
	}
	if ack, err := deliver("c1", 1, first); err != nil || ack.Kept || !strings.Contains(r.read(".tool/creds.json"), `"one"`) {
		t.Errorf("%+v %v", ack, err)
	}
	// A new sign-in is taken, even one that expires earlier, and the old one
	// never again. A file that it lacks goes.
	second := creds("two", 1800000000)[:1]
	if ack, err := deliver("c2", 2, second); err != nil || ack.Kept || !strings.Contains(r.read(".tool/creds.json"), `"two"`) {
		t.Errorf("%+v %v", ack, err)
	}
	if _, err := os.Lstat(r.path(".tool/account.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old account's file is still there: %v", err)
	}
	if _, err := deliver("c1", 1, first); !errors.Is(err, ErrOlder) || !strings.Contains(r.read(".tool/creds.json"), `"two"`) {
		t.Errorf("%v", err)
	}
	// Nothing takes everything away, after which counting may begin anew.
	if _, err := deliver("c2", 2, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(r.path(".tool/creds.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
	if _, err := deliver("c3", 1, first); err != nil {
		t.Error(err)
	}
	r.shutdown()
	if disk := r.onDisk(); strings.Contains(disk, `"one"`) || strings.Contains(disk, `"two"`) || strings.Contains(disk, "refreshed") {
		t.Errorf("on disk:\n%s", disk)
	}
}

func TestDeliverRefusals(t *testing.T) {
	d, r := deliverer(t)
	f := r.cfg.Files[0]
	good := creds("x", 1900000000)
	for name, files := range map[string][]guestapi.File{
		"required missing": good[1:],
		"not the schema":   {{Name: "creds", Content: []byte(`{"token":""}`)}},
		"unknown name":     append([]guestapi.File{{Name: "../../etc/cron.d/x", Content: []byte("{}")}}, good...),
		"a name twice":     append([]guestapi.File{good[0]}, good...),
		"too large":        {{Name: "creds", Content: make([]byte, guestapi.MaxFileBytes+1)}},
	} {
		if _, err := d.Deliver(guestapi.Delivery{CredentialID: "c", Version: 1, Provider: f, Files: files}); !errors.Is(err, provider.ErrCredential) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.Deliver(guestapi.Delivery{Files: good}); !errors.Is(err, provider.ErrInvalidFile) {
		t.Errorf("no provider: %v", err)
	}
	d.inMemory = func(*os.File) error { return ErrNotInMemory }
	if _, err := d.Deliver(guestapi.Delivery{CredentialID: "c", Version: 1, Provider: f, Files: good}); !errors.Is(err, ErrNotInMemory) {
		t.Errorf("on a disk: %v", err)
	}
	if entries, err := os.ReadDir(r.path(".tool")); err != nil {
		t.Error(err)
	} else {
		for _, e := range entries {
			if strings.Contains(e.Name(), "creds") {
				t.Errorf("%s was written", e.Name())
			}
		}
	}
}

// The real check: an ordinary directory is not in memory, a tmpfs is.
func TestInMemory(t *testing.T) {
	for path, want := range map[string]bool{"/proc": false, "/dev/shm": true} {
		dir, err := openDir(path, ".", nil)
		if err != nil {
			t.Fatalf("%s is on every Linux on which a machine could run: %v", path, err)
		}
		if err := inMemory(dir); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
		_ = dir.Close()
	}
}

// A link in a file's place is replaced, not followed; a link in a directory's
// place is refused.
func TestDeliverAmongTraps(t *testing.T) {
	d, r := deliverer(t)
	f := r.cfg.Files[0]
	target := filepath.Join(openTempDir(t), "target")
	if err := os.WriteFile(target, []byte("untouched"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, r.path(".tool/creds.json")); err != nil {
		t.Fatal(err)
	}
	in := guestapi.Delivery{CredentialID: "c", Version: 1, Provider: f, Files: creds("x", 1900000000)}
	if _, err := d.Deliver(in); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(target); err != nil || string(b) != "untouched" {
		t.Errorf("%q %v", b, err)
	}
	if info, err := os.Lstat(r.path(".tool/creds.json")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v %v", info, err)
	}
	u := testUser(t)
	if err := os.Symlink(filepath.Dir(target), filepath.Join(u.Home, ".tool")); err != nil {
		t.Fatal(err)
	}
	d = NewDeliverer(u)
	d.inMemory = func(*os.File) error { return nil }
	if _, err := d.Deliver(in); !errors.Is(err, errNotPlain) {
		t.Errorf("through a link: %v", err)
	}
}

// A reader always sees one whole version.
func TestDeliverIsAtomic(t *testing.T) {
	d, r := deliverer(t)
	f := r.cfg.Files[0]
	deliver := func(v int) {
		token := strings.Repeat(fmt.Sprint(v%10), 40000)
		if _, err := d.Deliver(guestapi.Delivery{CredentialID: fmt.Sprint(v), Version: v, Provider: f, Files: creds(token, 1900000000)}); err != nil {
			t.Error(err)
		}
	}
	deliver(1)
	var all sync.WaitGroup
	stop := make(chan struct{})
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := Capture(f, r.user); err != nil {
				t.Errorf("half a file: %v", err)
				return
			}
		}
	})
	for v := range 30 {
		deliver(v + 2)
	}
	close(stop)
	all.Wait()
}
