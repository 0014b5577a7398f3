//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// User is the unprivileged user that a person's programs run as. Home is an
// absolute path without symbolic links.
type User struct {
	Name     string
	UID, GID int
	Home     string
}

// personUser is the machine's one user.
func personUser() User {
	return User{Name: PersonName, UID: PersonUID, GID: PersonGID, Home: PersonHome}
}

// credential makes a child run as u. It is nil where that is who we are, which
// only tests are.
func (u User) credential() *syscall.Credential {
	if os.Getuid() == u.UID {
		return nil
	}
	return &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)} //nolint:gosec // ids of our own
}

// withEnv returns env with the variables of more set, each name once.
func withEnv(env []string, more map[string]string) []string {
	out := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		_, replaced := more[name]
		return replaced
	})
	for name, value := range more {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

// getEnv returns the value of a variable in env.
func getEnv(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// errNotInstalled says that the machine has no such program.
var errNotInstalled = errors.New("no such program in PATH")

// lookPath finds a program in the PATH of env, or returns errNotInstalled: the
// agent's own PATH means nothing to the person's programs.
func lookPath(env []string, name string) (string, error) {
	for _, dir := range filepath.SplitList(getEnv(env, "PATH")) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, errNotInstalled)
}
