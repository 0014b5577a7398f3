// Package archtest holds the tree to its architecture: who may import whom.
package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/anteroom/anteroom/"

// layers are the packages below internal, from the lowest. A package imports
// only what is in a lower layer than its own.
var layers = [][]string{
	{"hostname", "line/serial", "machine/process", "machine/cgroup", "machine/snapshot", "machine/socket", "machine/home"},
	{"buildinfo", "session", "provider", "line", "steps", "egress", "web"},
	{"guestapi", "guest/catch", "guest/rfb", "image", "screen/vp8", "screen/vp8/vp8test"},
	{"guest", "screen", "machine", "machine/firecracker/fcapi", "store", "localhome"},
	{"guest/boot", "machine/gvisor", "machine/qemu", "machine/fake", "machine/machinetest", "store/sqlite", "store/storetest", "vault", "client"},
	{"machine/firecracker", "machine/firecracker/fctest", "stream", "ways"},
	{"control", "stream/rtc"},
	{"httpapi"},
	{"server"},
	{"settings", "doctor"},
}

// never are packages that others must not reach, also not through a third.
var never = map[string][]string{
	"internal/machine":             {"internal/store", "internal/vault", "internal/control"},
	"internal/machine/gvisor":      {"internal/store", "internal/vault", "internal/control"},
	"internal/machine/firecracker": {"internal/store", "internal/vault", "internal/control"},
	"internal/machine/qemu":        {"internal/store", "internal/vault", "internal/control"},
	"internal/guest":               {"internal/store", "internal/vault", "internal/control", "internal/machine", "internal/egress"},
	"internal/screen":              {"internal/store", "internal/vault", "internal/control", "internal/machine", "internal/egress"},
	"cmd/anteroom-guest":           {"internal/screen", "internal/store", "internal/vault", "internal/control", "internal/machine", "internal/egress"},
	"internal/egress":              {"internal/store", "internal/vault"},
	"internal/httpapi":             {"internal/vault", "internal/store/sqlite", "internal/machine/gvisor", "internal/machine/qemu"},
}

// imports are the imports of every package of this module that is no test, by
// its path below the module's.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	root := filepath.Join("..", "..")
	found := map[string]map[string]bool{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "node_modules" || name == "testdata" || name != ".." && strings.HasPrefix(name, ".") {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		if found[pkg] == nil {
			found[pkg] = map[string]bool{}
		}
		for _, i := range parsed.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			found[pkg][name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 20 {
		t.Fatalf("only %d packages were found", len(found))
	}
	out := map[string][]string{}
	for pkg, all := range found {
		out[pkg] = slices.Sorted(maps.Keys(all))
	}
	return out
}

// own is a package's path below this module, if it is of this module.
func own(name string) (string, bool) { return strings.CutPrefix(name, module) }

func TestCallsGoDownward(t *testing.T) {
	layer := map[string]int{}
	for i, names := range layers {
		for _, name := range names {
			layer[path.Join("internal", name)] = i
		}
	}
	all := imports(t)
	for pkg := range layer {
		if _, there := all[pkg]; !there {
			t.Errorf("%s has a layer and is not there", pkg)
		}
	}
	for pkg, imported := range all {
		if !strings.HasPrefix(pkg, "internal/") {
			continue
		}
		at, ok := layer[pkg]
		if !ok {
			t.Errorf("%s has no layer: say in this test where it belongs", pkg)
			continue
		}
		for _, name := range imported {
			other, ok := own(name)
			if !ok {
				continue
			}
			if below, known := layer[other]; !known || below >= at {
				t.Errorf("%s imports %s, which is not below it", pkg, other)
			}
		}
	}
}

func TestNeverReached(t *testing.T) {
	all := imports(t)
	for pkg, forbidden := range never {
		if _, there := all[pkg]; !there {
			t.Errorf("%s is not there", pkg)
		}
		// via says through whom a package is reached.
		via := map[string]string{pkg: ""}
		for queue := []string{pkg}; len(queue) > 0; queue = queue[1:] {
			for _, name := range all[queue[0]] {
				other, ok := own(name)
				if _, seen := via[other]; ok && !seen {
					via[other] = queue[0]
					queue = append(queue, other)
				}
			}
		}
		for _, other := range forbidden {
			if from, reached := via[other]; reached {
				t.Errorf("%s reaches %s, through %s", pkg, other, from)
			}
		}
	}
}

// TestSessionIsStandard: the domain depends on nothing but Go itself.
func TestSessionIsStandard(t *testing.T) {
	for _, name := range imports(t)["internal/session"] {
		if first, _, _ := strings.Cut(name, "/"); strings.Contains(first, ".") {
			t.Errorf("internal/session imports %s", name)
		}
	}
}

func TestOnlyTheServerImportsTheAPI(t *testing.T) {
	for pkg, imported := range imports(t) {
		if slices.Contains(imported, module+"internal/httpapi") && pkg != "internal/server" {
			t.Errorf("%s imports internal/httpapi", pkg)
		}
	}
}

// TestNothingShippedImportsTests: what is for tests stays out of the programs.
func TestNothingShippedImportsTests(t *testing.T) {
	for pkg, imported := range imports(t) {
		if pkg == "cmd/anteroom-demo" || strings.HasPrefix(pkg, "test/") || strings.HasSuffix(pkg, "test") || strings.HasSuffix(pkg, "/fake") {
			continue
		}
		for _, name := range imported {
			other, ok := own(name)
			if name == "testing" || ok && (strings.HasPrefix(other, "test/") || strings.HasSuffix(other, "test") || strings.HasSuffix(other, "/fake")) {
				t.Errorf("%s imports %s", pkg, name)
			}
		}
	}
}

// TestEveryPackageIsDescribed holds ARCHITECTURE.md to what there is.
func TestEveryPackageIsDescribed(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range imports(t) {
		name, ours := strings.CutPrefix(pkg, "internal/")
		if !ours && !strings.HasPrefix(pkg, "cmd/") {
			continue
		}
		if !strings.Contains(string(text), "`"+pkg+"`") && !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("%s is not in ARCHITECTURE.md's table of packages", pkg)
		}
	}
}

// TestOneGVisor: the network stack in the agent is of the same version as the
// runsc that machines run in.
func TestOneGVisor(t *testing.T) {
	pinned := regexp.MustCompile(`(?m)^(?:require )?\s*gvisor\.dev/gvisor (\S+)`)
	var found []string
	for _, file := range []string{"go.mod", "tools/runsc/go.mod"} {
		b, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		m := pinned.FindSubmatch(b)
		if m == nil {
			t.Fatalf("%s does not name gVisor", file)
		}
		found = append(found, string(m[1]))
	}
	if found[0] != found[1] {
		t.Errorf("go.mod has gVisor %s, tools/runsc has %s", found[0], found[1])
	}
}
