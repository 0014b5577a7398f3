package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "root.key")
	if _, err := Open(Config{KeyPath: path}); !errors.Is(err, ErrNoKey) {
		t.Fatalf("without Create: %v", err)
	}
	if _, err := Open(Config{Create: true}); !errors.Is(err, ErrInvalid) {
		t.Fatalf("without a path: %v", err)
	}
	old := unix.Umask(0o277)
	_, err := Open(Config{KeyPath: path, Create: true})
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o400 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{KeyPath: path, Create: true}); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(first, second) {
		t.Fatalf("a second run made another key: %v", err)
	}
	onlyKeyAndLock(t, dir)
	if _, err := Open(Config{KeyPath: filepath.Join(dir, "missing", "root.key"), Create: true}); err == nil {
		t.Error("a key in no directory")
	}
}

func onlyKeyAndLock(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "root.key" && e.Name() != "root.key.lock" {
			t.Errorf("%s is left over", e.Name())
		}
	}
}

func TestCreateTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root.key")
	type result struct {
		id  string
		err error
	}
	results := make(chan result)
	for range 8 {
		go func() {
			v, err := Open(Config{KeyPath: path, Create: true})
			if err != nil {
				results <- result{err: err}
				return
			}
			s, err := v.Seal(binding(), testFiles())
			results <- result{s.KEKID, err}
		}()
	}
	ids := map[string]bool{}
	for range 8 {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
		}
		ids[r.id] = true
	}
	if len(ids) != 1 {
		t.Errorf("sealed with %d different keys", len(ids))
	}
}

func TestKeyFileRefused(t *testing.T) {
	good := keyring{newRootKey(time.Now())}.format()
	secret := string(bytes.Fields(good)[4])
	for name, test := range map[string]struct {
		make func(path string) error
		says string
	}{
		"readable by the group":  {write(good, 0o440), "0440"},
		"readable by all":        {write(good, 0o404), "0404"},
		"writable by its owner":  {write(good, 0o600), "chmod 0400"},
		"executable":             {write(good, 0o500), "0500"},
		"set-uid":                {write(good, fs.ModeSetuid|0o400), "4400"},
		"empty":                  {write(nil, 0o400), "0 bytes"},
		"too large":              {write(bytes.Repeat([]byte("x"), maxKeyFileBytes+1), 0o400), "bytes"},
		"raw bytes":              {write(make([]byte, 32), 0o400), "does not begin"},
		"newer":                  {write(bytes.Replace(good, []byte("v1"), []byte("v2"), 1), 0o400), "another version"},
		"header only":            {write([]byte(keyFileHeader+"\n"), 0o400), "no key"},
		"cut":                    {write(good[:len(good)-4], 0o400), "line 2"},
		"no newline":             {write(bytes.TrimSpace(good), 0o400), "not written"},
		"CRLF":                   {write(bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), 0o400), "begin"},
		"a key twice":            {write(append(bytes.Clone(good), good[len(keyFileHeader)+1:]...), 0o400), "line 3"},
		"a letter of the secret": {write(flip(good, len(good)-8), 0o400), "line 2"},
		"a letter of the id":     {write(flip(good, len(keyFileHeader)+2), 0o400), "line 2"},
		"another time zone":      {write(bytes.Replace(good, []byte("Z "), []byte("+00:00 "), 1), 0o400), "not written"},
		"a directory":            {func(path string) error { return os.Mkdir(path, 0o400) }, "regular"},
		"a FIFO":                 {func(path string) error { return unix.Mkfifo(path, 0o400) }, "regular"},
		"a link": {func(path string) error {
			if err := write(good, 0o400)(path + "2"); err != nil {
				return err
			}
			return os.Symlink(path+"2", path)
		}, "symbolic link"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "root.key")
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			_, err := Open(Config{KeyPath: path, Create: true})
			if !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), path) {
				t.Fatalf("the error is %v", err)
			}
			if strings.Contains(err.Error(), secret[:8]) {
				t.Fatalf("the error shows the key: %v", err)
			}
			if _, err := (&Vault{path: path}).Seal(binding(), testFiles()); !errors.Is(err, ErrKeyFile) {
				t.Fatalf("seal: %v", err)
			}
		})
	}
}

func write(text []byte, mode fs.FileMode) func(string) error {
	return func(path string) error {
		return errors.Join(os.WriteFile(path, text, 0o600), os.Chmod(path, mode))
	}
}

// flip exchanges a letter for another that could be there.
func flip(text []byte, at int) []byte {
	out := bytes.Clone(text)
	if out[at]++; out[at] > 'z' || out[at] < 'a' {
		out[at] = 'b'
	}
	return out
}

func TestKeyFileOwner(t *testing.T) {
	st := unix.Stat_t{Mode: unix.S_IFREG | 0o400, Uid: 7, Size: 100}
	if err := checkStat("p", &st, 7); err != nil {
		t.Error(err)
	}
	if err := checkStat("p", &st, 8); !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), "belongs to user 7") {
		t.Errorf("another owner: %v", err)
	}
}

func TestTooManyKeys(t *testing.T) {
	var keys keyring
	for i := range maxKeys + 1 {
		keys = append(keys, newRootKey(time.Unix(int64(i), 0)))
	}
	if got, err := parseKeys(keys[:maxKeys].format()); err != nil || len(got) != maxKeys {
		t.Errorf("%d keys: %v", len(got), err)
	}
	if _, err := parseKeys(keys.format()); !errors.Is(err, ErrKeyFile) {
		t.Errorf("one more: %v", err)
	}
}

// TestKilledWhileWriting: at each step of a replacement a kill leaves the old
// file or the new one, and the next start cleans up.
func TestKilledWhileWriting(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "root.key")
	v, err := Open(Config{KeyPath: path, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := v.Seal(binding(), testFiles())
	if err != nil {
		t.Fatal(err)
	}
	killed := fmt.Errorf("killed")
	keys, err := readKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	err = writeKeys(path, append(keyring{newRootKey(time.Now())}, keys...), func(from, _ string) error {
		// What a kill leaves here is the whole new file beside the old one.
		if err := os.Link(from, filepath.Join(dir, "left")); err != nil {
			t.Error(err)
		}
		return killed
	})
	if !errors.Is(err, killed) {
		t.Fatal(err)
	}
	for _, left := range []func() error{
		func() error { return os.Rename(filepath.Join(dir, "left"), tempPath(path)) },
		func() error { return os.WriteFile(tempPath(path), []byte("anteroom-va"), 0o400) },
	} {
		if err := left(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{KeyPath: path}); err != nil {
			t.Fatal(err)
		}
		onlyKeyAndLock(t, dir)
		if _, err := v.Open(binding(), sealed); err != nil {
			t.Fatal(err)
		}
	}
}
