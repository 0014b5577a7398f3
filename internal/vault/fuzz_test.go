package vault

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/store"
)

func FuzzDecode(f *testing.F) {
	good, err := encode(testFiles()[:2])
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{good, good[:len(good)-1], append(bytes.Clone(good), 0), nil, {0, 0}, {0, 17}, {0, 1}, {0, 1, 0}, {0, 1, 1, 'a'},
		{0, 1, 1, 'a', 0xff, 0xff, 0xff, 0xff}, {0, 1, 1, '/', 0, 0, 0, 0}, {0, 2, 1, 'a', 0, 0, 0, 0, 1, 'a', 0, 0, 0, 0}, {0, 1, 1, 'a', 0, 1, 0, 1}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := decode(b)
		if err != nil {
			if !errors.Is(err, ErrSealed) || files != nil {
				t.Fatalf("%v, %v", files, err)
			}
			return
		}
		again, err := encode(files)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("it decodes, but encodes to something else: %v", err)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	one := keyring{newRootKey(time.Unix(1e9, 0))}
	two := append(keyring{newRootKey(time.Unix(2e9, 0))}, one...)
	for _, seed := range [][]byte{one.format(), two.format(), nil, []byte(keyFileHeader), []byte(keyFileHeader + "\n\n"), []byte("anteroom-vault-keys v2\n"),
		bytes.ReplaceAll(one.format(), []byte("\n"), []byte("\r\n")), bytes.TrimSpace(one.format())} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseKeys(text)
		if err != nil {
			if !errors.Is(err, ErrKeyFile) || keys != nil {
				t.Fatalf("%v, %v", keys, err)
			}
			return
		}
		if len(keys) == 0 || len(keys) > maxKeys || !bytes.Equal(keys.format(), text) {
			t.Fatalf("%d keys, or another text", len(keys))
		}
	})
}

func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "root.key")
	key := newRootKey(time.Unix(1e9, 0))
	if err := os.WriteFile(path, keyring{key}.format(), 0o400); err != nil {
		f.Fatal(err)
	}
	v := &Vault{path: path}
	s, err := v.Seal(binding(), testFiles()[:2])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Schema, s.KEKID, s.WrappedDEK, s.Ciphertext)
	f.Add(s.Schema, s.KEKID, s.Ciphertext, s.WrappedDEK)
	f.Add(0, "", []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, schema int, kek string, wrapped, ciphertext []byte) {
		files, err := v.Open(binding(), store.Sealed{Schema: schema, KEKID: kek, WrappedDEK: wrapped, Ciphertext: ciphertext, SHA256: sha256.Sum256(ciphertext)})
		if err == nil {
			if !bytes.Equal(ciphertext, s.Ciphertext) || !sameFiles(files, testFiles()[:2]) {
				t.Fatal("something else opens")
			}
			return
		}
		if !errors.Is(err, ErrSealed) && !errors.Is(err, ErrUnknownKey) {
			t.Fatal(err)
		}
	})
}
