package localhome

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
)

// stranger is a user who is not root, as whom root can act.
const stranger = 65534

const (
	liveFile  = `{"access_token":"first-access","refresh_token":"first-refresh","expiry_date":1}`
	newFile   = `{"access_token":"other-access","refresh_token":"other-refresh","expiry_date":2}`
	blankFile = `{"access_token":"","refresh_token":"","expiry_date":0}`
)

func gemini(t *testing.T) *provider.File { return file(t, "gemini") }

func file(t *testing.T, name string) *provider.File {
	t.Helper()
	set, err := provider.Load("")
	if err != nil {
		t.Fatal(err)
	}
	f, err := set.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// testHome is a home directory of another user, where the tests run as root.
func testHome(t *testing.T, files map[string]string) Home {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, stranger, stranger))
		})
		// The way to it must be open to them too.
		for up := filepath.Dir(dir); err == nil && up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
			err = os.Chmod(up, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	h, err := Find(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func delivery(t *testing.T, content string) guestapi.Delivery {
	return guestapi.Delivery{CredentialID: "c1", Version: 1, Provider: gemini(t), Files: []guestapi.File{
		{Name: "oauth_creds.json", Content: []byte(content)},
		{Name: "google_accounts.json", Content: []byte(`{"active":"a@example.com"}`)},
	}}
}

// check holds a file to content, mode and the home's owner.
func check(t *testing.T, h Home, name, content string) {
	t.Helper()
	path := filepath.Join(h.Dir, name)
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if string(got) != content || info.Mode() != 0o600 || int(st.Uid) != h.UID || int(st.Gid) != h.GID {
		t.Errorf("%s: %q, mode %v, owner %d:%d", name, got, info.Mode(), st.Uid, st.Gid)
	}
}

func TestDeliverIntoAnEmptyHome(t *testing.T) {
	h := testHome(t, nil)
	in := delivery(t, newFile)
	if err := h.Live(in.Provider); err != nil {
		t.Fatal(err)
	}
	ack, notes, err := h.Deliver(t.Context(), in, false)
	if err != nil || len(notes) > 0 {
		t.Fatal(notes, err)
	}
	if ack.CredentialID != "c1" || ack.Version != 1 || ack.SHA256 != guestapi.DeliveryHash(in.Files) {
		t.Errorf("acknowledged as %+v", ack)
	}
	check(t, h, ".gemini/oauth_creds.json", newFile)
	check(t, h, ".gemini/google_accounts.json", `{"active":"a@example.com"}`)
	check(t, h, ".gemini/settings.json", in.Provider.Target.Seed[0].Content)
	info, err := os.Stat(filepath.Join(h.Dir, ".gemini"))
	if err != nil || info.Mode().Perm() != 0o700 || int(info.Sys().(*syscall.Stat_t).Uid) != h.UID {
		t.Errorf("directory: %v, %v", info, err)
	}
	entries, err := os.ReadDir(filepath.Join(h.Dir, ".gemini"))
	if err != nil || len(entries) != 3 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	if err := h.Live(in.Provider); !errors.Is(err, ErrLive) || !strings.Contains(err.Error(), "~/.gemini/oauth_creds.json") {
		t.Errorf("afterwards: %v", err)
	}
}

func TestALiveSignInIsLeftAlone(t *testing.T) {
	h := testHome(t, map[string]string{".gemini/oauth_creds.json": liveFile})
	if _, _, err := h.Deliver(t.Context(), delivery(t, newFile), false); !errors.Is(err, ErrLive) {
		t.Fatalf("%v", err)
	}
	got, err := os.ReadFile(filepath.Join(h.Dir, ".gemini/oauth_creds.json"))
	if err != nil || string(got) != liveFile {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(h.Dir, ".gemini/settings.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something was written")
	}
	if _, _, err := h.Deliver(t.Context(), delivery(t, newFile), true); err != nil {
		t.Fatal(err)
	}
	check(t, h, ".gemini/oauth_creds.json", newFile)
	if _, err := os.Stat(filepath.Join(h.Dir, ".gemini/oauth_creds.json"+keptSuffix)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a copy of the replaced sign-in was kept")
	}
}

func TestWhatIsNoSignInIsKept(t *testing.T) {
	h := testHome(t, map[string]string{
		".gemini/oauth_creds.json": blankFile,
		".gemini/settings.json":    `{"mine":true}`,
	})
	if _, _, err := h.Deliver(t.Context(), delivery(t, newFile), false); err != nil {
		t.Fatal(err)
	}
	check(t, h, ".gemini/oauth_creds.json", newFile)
	kept, err := os.ReadFile(filepath.Join(h.Dir, ".gemini/oauth_creds.json"+keptSuffix))
	if err != nil || string(kept) != blankFile {
		t.Errorf("%q, %v", kept, err)
	}
	mine, err := os.ReadFile(filepath.Join(h.Dir, ".gemini/settings.json"))
	if err != nil || string(mine) != `{"security":{"auth":{"selectedType":"oauth-personal"}},"mine":true}` {
		t.Errorf("the person's settings are now %q, %v", mine, err)
	}
}

// What the tool needs in a file of the person's is added to it, or said.
func TestSeedsAreMerged(t *testing.T) {
	const missing = `"security":{"auth":{"selectedType":"oauth-personal"}}`
	for name, tt := range map[string]struct{ have, want, note string }{
		"without it":     {"{\n  \"a\": 1\n}\n", "{\n  " + missing + ",\n  \"a\": 1\n}\n", ""},
		"with it":        {"{" + missing + "}", "{" + missing + "}", ""},
		"empty":          {"", "{" + missing + "}\n", ""},
		"another choice": {`{"security":{"auth":{"selectedType":"x"}}}`, `{"security":{"auth":{"selectedType":"x"}}}`, "~/.gemini/settings.json has another value at /security/auth/selectedType, which was left"},
		"no JSON":        {"{} // mine", "{} // mine", "Gemini CLI may not use the sign-in before this is in it: {" + missing},
	} {
		t.Run(name, func(t *testing.T) {
			h := testHome(t, map[string]string{".gemini/settings.json": tt.have})
			file := filepath.Join(h.Dir, ".gemini/settings.json")
			if err := os.Chmod(file, 0o640); err != nil {
				t.Fatal(err)
			}
			_, notes, err := h.Deliver(t.Context(), delivery(t, newFile), false)
			if err != nil || (len(notes) > 0) != (tt.note != "") || !strings.Contains(strings.Join(notes, ""), tt.note) {
				t.Errorf("%q, %v", notes, err)
			}
			got, err := os.ReadFile(file)
			info, statErr := os.Lstat(file)
			if err != nil || statErr != nil || string(got) != tt.want || info.Mode() != 0o640 {
				t.Errorf("%q, %v, %v", got, info, err)
			}
			if uid, _ := owner(t, file); uid != h.UID {
				t.Errorf("it belongs to %d", uid)
			}
			check(t, h, ".gemini/oauth_creds.json", newFile)
		})
	}
	t.Run("a link", func(t *testing.T) {
		h := testHome(t, map[string]string{"dotfiles/settings.json": `{"a":1}`, ".gemini/x": ""})
		if err := os.Symlink("../dotfiles/settings.json", filepath.Join(h.Dir, ".gemini/settings.json")); err != nil {
			t.Fatal(err)
		}
		_, notes, err := h.Deliver(t.Context(), delivery(t, newFile), false)
		if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "it is a link") {
			t.Errorf("%q, %v", notes, err)
		}
		if to, err := os.Readlink(filepath.Join(h.Dir, ".gemini/settings.json")); err != nil || to != "../dotfiles/settings.json" {
			t.Errorf("%q, %v", to, err)
		}
	})
}

func TestDeliverRefuses(t *testing.T) {
	h := testHome(t, nil)
	twice := delivery(t, newFile)
	twice.Files = append(twice.Files, twice.Files[0])
	for name, in := range map[string]guestapi.Delivery{
		"blank": delivery(t, blankFile),
		"twice": twice,
		"none":  {Provider: gemini(t)},
	} {
		if _, _, err := h.Deliver(t.Context(), in, true); !errors.Is(err, provider.ErrCredential) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(h.Dir); err != nil || len(entries) != 0 {
		t.Errorf("%d files were written, %v", len(entries), err)
	}
}

// A person cannot have root write, or read, where they could not themselves.
func TestTheOwnersRightsOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can act as another user")
	}
	outside := t.TempDir()
	for name, prepare := range map[string]func(h Home) error{
		"a link out of the home": func(h Home) error { return os.Symlink(outside, filepath.Join(h.Dir, ".gemini")) },
		"root's directory":       func(h Home) error { return os.Mkdir(filepath.Join(h.Dir, ".gemini"), 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			h := testHome(t, nil)
			if err := prepare(h); err != nil {
				t.Fatal(err)
			}
			if _, _, err := h.Deliver(t.Context(), delivery(t, newFile), true); err == nil {
				t.Error("it was delivered")
			}
			for _, dir := range []string{outside, filepath.Join(h.Dir, ".gemini")} {
				if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
					t.Errorf("%s has %d files, %v", dir, len(entries), err)
				}
			}
		})
	}
	// No thread keeps the rights: root still writes where only root may.
	if err := os.WriteFile(filepath.Join(outside, "root's"), nil, 0o600); err != nil {
		t.Error(err)
	}
}

// A fifo in a file's place must not hold the program up.
func TestNotAFile(t *testing.T) {
	h := testHome(t, map[string]string{".gemini/other": ""})
	if err := syscall.Mkfifo(filepath.Join(h.Dir, ".gemini/oauth_creds.json"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(h.Dir, ".gemini/oauth_creds.json"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := h.Live(gemini(t)); !errors.Is(err, ErrHome) {
		t.Errorf("%v", err)
	}
}

func TestFind(t *testing.T) {
	if _, err := Find(filepath.Join(t.TempDir(), "nothing"), nil); !errors.Is(err, ErrHome) {
		t.Errorf("missing: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(file, nil); !errors.Is(err, ErrHome) {
		t.Errorf("a file: %v", err)
	}
	if os.Geteuid() == 0 {
		t.Setenv("SUDO_UID", "4294967000")
		if _, err := Find("", gemini(t)); !errors.Is(err, ErrHome) || !strings.Contains(err.Error(), "--home") {
			t.Errorf("nobody's: %v", err)
		}
	}
}

// claude's files, in which a directory and a file beside it are moved into one.
func claudeDelivery(t *testing.T) guestapi.Delivery {
	return guestapi.Delivery{CredentialID: "c1", Version: 1, Provider: file(t, "claude"), Files: []guestapi.File{{
		Name: "credentials.json", Content: []byte(`{"claudeAiOauth":{"accessToken":"a","refreshToken":"r","expiresAt":1,"scopes":["s"]}}`),
	}}}
}

// Where a variable of the tool's own moves its files, they are looked for there,
// and delivered there.
func TestTheToolsOwnVariable(t *testing.T) {
	elsewhere := testHome(t, nil).Dir
	for _, tt := range []struct {
		in    guestapi.Delivery
		name  string
		files []string
		shown string
	}{
		{delivery(t, newFile), "GEMINI_CLI_HOME", []string{".gemini/oauth_creds.json", ".gemini/settings.json"}, "$GEMINI_CLI_HOME/.gemini/oauth_creds.json"},
		{claudeDelivery(t), "CLAUDE_CONFIG_DIR", []string{".credentials.json", ".claude.json"}, "$CLAUDE_CONFIG_DIR/.credentials.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(tt.name, elsewhere)
			h, err := Find("", tt.in.Provider)
			if err != nil || h.Dir != elsewhere {
				t.Fatalf("%+v, %v", h, err)
			}
			h.UID, h.GID = owner(t, elsewhere)
			if _, _, err := h.Deliver(t.Context(), tt.in, false); err != nil {
				t.Fatal(err)
			}
			for _, name := range tt.files {
				if info, err := os.Lstat(filepath.Join(elsewhere, name)); err != nil || info.Mode() != 0o600 {
					t.Errorf("%s: %v, %v", name, info, err)
				}
			}
			if err := h.Live(tt.in.Provider); !errors.Is(err, ErrLive) || !strings.Contains(err.Error(), tt.shown) {
				t.Errorf("afterwards: %v", err)
			}
			// A home that is named is meant.
			if h, err := Find(t.TempDir(), tt.in.Provider); err != nil || h.Live(tt.in.Provider) != nil {
				t.Errorf("%+v, %v", h, err)
			}
			for _, wrong := range []string{"relative", filepath.Join(elsewhere, "nothing"), filepath.Join(elsewhere, tt.files[0])} {
				t.Setenv(tt.name, wrong)
				if _, err := Find("", tt.in.Provider); !errors.Is(err, ErrHome) || !strings.Contains(err.Error(), tt.name+" is set") {
					t.Errorf("%s: %v", wrong, err)
				}
			}
			t.Setenv(tt.name, "") // as good as not set
			if h, err := Find("", tt.in.Provider); err != nil || h.Dir == elsewhere {
				t.Errorf("%+v, %v", h, err)
			}
		})
	}
}

func owner(t *testing.T, dir string) (uid, gid int) {
	t.Helper()
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}
