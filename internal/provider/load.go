package provider

import (
	"embed"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

//go:embed files/*.yaml
var embedded embed.FS

// maxFiles limits how many provider files a directory may hold.
const maxFiles = 64

// Set is every provider that this server knows. It is immutable: Files that it
// returns must not be changed. Methods may be called concurrently.
type Set struct {
	files    []*File          // by name
	byName   map[string]*File // names and aliases
	replaced []string
}

// Load reads the embedded provider files and then those of dir (*.yaml, not
// below it; none if dir is ""). A file there with the name of an embedded
// provider replaces it. The first file that breaks a rule refuses the whole
// set with a *FileError; so does one called *.yml, which was meant to be read.
func Load(dir string) (*Set, error) {
	files := make(map[string]source)
	names, err := fs.Glob(embedded, "files/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("provider: embedded files: %w", err)
	}
	for _, n := range names {
		content, err := embedded.ReadFile(n)
		if err != nil {
			return nil, fmt.Errorf("provider: embedded files: %w", err)
		}
		if err := addFile(files, filepath.Base(n), content, true); err != nil {
			return nil, err
		}
	}
	if dir != "" {
		if err := loadDir(files, dir); err != nil {
			return nil, err
		}
	}
	return newSet(files)
}

// source is a provider file and where it came from.
type source struct {
	*File
	path     string
	tree     *ast.File
	embedded bool
	replaces bool
}

func addFile(files map[string]source, path string, content []byte, isEmbedded bool) error {
	f, tree, err := parse(path, content)
	if err != nil {
		return err
	}
	if want := f.Name + ".yaml"; filepath.Base(path) != want {
		return &FileError{File: path, Line: 1, Field: "name", Reason: "the file of this provider must be called " + want}
	}
	old, exists := files[f.Name]
	files[f.Name] = source{File: f, path: path, tree: tree, embedded: isEmbedded, replaces: exists && old.embedded}
	return nil
}

func loadDir(files map[string]source, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("provider: directory of provider files: %w", err)
	}
	count := 0
	for _, e := range entries {
		name := e.Name()
		ext := strings.ToLower(filepath.Ext(name))
		if strings.HasPrefix(name, ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		path := filepath.Join(dir, name)
		if filepath.Ext(name) != ".yaml" {
			return &FileError{File: path, Reason: "the name of a provider file ends in .yaml"}
		}
		if count++; count > maxFiles {
			return &FileError{File: path, Reason: fmt.Sprintf("more than %d provider files in the directory", maxFiles)}
		}
		content, err := readRegular(path, maxFileBytes+1)
		if err != nil {
			return fmt.Errorf("provider: %w", err)
		}
		if err := addFile(files, path, content, false); err != nil {
			return err
		}
	}
	return nil
}

// readRegular reads at most limit bytes of a regular file. A symbolic link is
// followed: that is how mounted configuration directories are made.
func readRegular(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &FileError{File: path, Reason: "not a regular file"}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, limit))
}

// newSet checks what can only be seen over all files: that no name means two
// providers, and that no two providers share a private directory.
func newSet(files map[string]source) (*Set, error) {
	s := &Set{byName: make(map[string]*File)}
	dirs := make(map[string]string)
	for _, name := range sortedKeys(files) {
		src := files[name]
		s.files = append(s.files, src.File)
		if src.replaces {
			s.replaced = append(s.replaced, name)
		}
		for i, n := range append([]string{name}, src.Aliases...) {
			if other, taken := s.byName[n]; taken {
				field := "name"
				if i > 0 {
					field = fmt.Sprintf("aliases[%d]", i-1)
				}
				return nil, &FileError{File: src.path, Line: lineOf(src.tree, field), Field: field, Reason: fmt.Sprintf("%q already means the provider %q", n, other.Name)}
			}
			s.byName[n] = src.File
		}
		for i, d := range src.Target.PrivateDirs {
			for other, owner := range dirs {
				if within(d.Path, other) || within(other, d.Path) {
					field := fmt.Sprintf("target.private_dirs[%d].path", i)
					return nil, &FileError{File: src.path, Line: lineOf(src.tree, field), Field: field, Reason: fmt.Sprintf("overlaps a private directory of the provider %q", owner)}
				}
			}
			dirs[d.Path] = name
		}
	}
	return s, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Get returns the provider of that name or alias, or ErrUnknown.
func (s *Set) Get(nameOrAlias string) (*File, error) {
	if f, ok := s.byName[nameOrAlias]; ok {
		return f, nil
	}
	return nil, ErrUnknown
}

// All returns every provider, by name.
func (s *Set) All() []*File { return slices.Clone(s.files) }

// Replaced returns the names of embedded providers that a file of the
// directory replaced.
func (s *Set) Replaced() []string { return slices.Clone(s.replaced) }

// LogValue names the providers, and which of them replace embedded ones.
func (s *Set) LogValue() slog.Value {
	names := make([]string, len(s.files))
	for i, f := range s.files {
		names[i] = f.Name
	}
	return slog.GroupValue(
		slog.String("names", strings.Join(names, ",")),
		slog.String("replaced", strings.Join(s.replaced, ",")))
}

// Validate holds a file that did not come from Parse (one that a machine got
// as JSON) to the same rules. Errors are *FileError, without a line.
func (f *File) Validate() error {
	if f == nil {
		return &FileError{File: "provider", Reason: "there is none"}
	}
	if p := f.check(); p != nil {
		name := f.Name
		if !nameRE.MatchString(name) {
			name = "provider"
		}
		return &FileError{File: name, Field: p.field, Reason: p.reason}
	}
	return nil
}
