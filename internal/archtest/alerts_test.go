package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestAlertsNameMetrics: an alert on a metric that nobody writes never fires.
func TestAlertsNameMetrics(t *testing.T) {
	files, err := filepath.Glob("../../deploy/prometheus/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	written := regexp.MustCompile(`"(anteroom_[a-z_]+)"`)
	known := map[string]bool{}
	for pkg := range imports(t) {
		sources, err := filepath.Glob(filepath.Join("..", "..", pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range sources {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range written.FindAllStringSubmatch(string(text), -1) {
				known[m[1]] = true
			}
		}
	}
	named := regexp.MustCompile(`anteroom_[a-z_]+`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var rules struct {
			Groups []struct {
				Rules []struct {
					Alert string `yaml:"alert"`
					Expr  string `yaml:"expr"`
				} `yaml:"rules"`
			} `yaml:"groups"`
		}
		if err := yaml.Unmarshal(text, &rules); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, g := range rules.Groups {
			for _, r := range g.Rules {
				n++
				found := named.FindAllString(r.Expr, -1)
				if r.Alert == "" || len(found) == 0 {
					t.Errorf("%s: rule %d has no name or no metric", file, n)
				}
				for _, m := range found {
					if base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(m, "_count"), "_sum"), "_bucket"); !known[m] && !known[base] {
						t.Errorf("%s: %s: nobody writes %s", file, r.Alert, m)
					}
				}
			}
		}
		if n == 0 {
			t.Errorf("%s has no rules", file)
		}
	}
}
