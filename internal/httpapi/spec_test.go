package httpapi

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/anteroom/anteroom/internal/session"
)

const specFile = "../../api/openapi.yaml"

// spec is what the tests read of the document.
type spec struct {
	OpenAPI string                          `yaml:"openapi"`
	Paths   map[string]map[string]operation `yaml:"paths"`
	Parts   struct {
		Schemas map[string]struct {
			Enum []string `yaml:"enum"`
		} `yaml:"schemas"`
	} `yaml:"components"`
}

type operation struct {
	ID        string            `yaml:"operationId"`
	Security  *[]any            `yaml:"security"`
	Responses map[string]anyMap `yaml:"responses"`
}

type anyMap = map[string]any

func readSpec(t *testing.T) spec {
	t.Helper()
	b, err := os.ReadFile(specFile)
	if err != nil {
		t.Fatal(err)
	}
	// Parameters of a whole path are a list, not an operation.
	var raw struct {
		OpenAPI string                    `yaml:"openapi"`
		Paths   map[string]map[string]any `yaml:"paths"`
		Parts   any                       `yaml:"components"`
	}
	if err := yaml.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	for _, p := range raw.Paths {
		delete(p, "parameters")
	}
	clean, err := yaml.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	var s spec
	if err := yaml.Unmarshal(clean, &s); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s.OpenAPI, "3.1") {
		t.Fatalf("OpenAPI %s", s.OpenAPI)
	}
	return s
}

// The generated file is what the document says: nobody edited either alone.
func TestGeneratedFileIsUpToDate(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "tool", "oapi-codegen", "-config", "oapi-codegen.yaml", specFile)
	var msg bytes.Buffer
	cmd.Stderr = &msg
	want, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &msg)
	}
	got, err := os.ReadFile("api.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("api.gen.go is not what the document gives: run go generate ./internal/httpapi")
	}
}

// What the document says is public is public in the code, and nothing else.
func TestPublicRoutes(t *testing.T) {
	s := &Server{}
	found := 0
	for path, ops := range readSpec(t).Paths {
		for method, op := range ops {
			found++
			pattern := strings.ToUpper(method) + " " + path
			public := op.Security != nil && len(*op.Security) == 0
			if s.public(pattern) != public {
				t.Errorf("%s: public is %v in the code, %v in the document", pattern, !public, public)
			}
			if _, ok := op.Responses["default"]; !ok {
				t.Errorf("%s does not say what a problem looks like", pattern)
			}
		}
	}
	if n := len(generatedRoutes(t)); n != found {
		t.Errorf("%d operations, %d routes", found, n)
	}
}

// The enumerations of the document are those of the domain.
func TestEnumerations(t *testing.T) {
	schemas := readSpec(t).Parts.Schemas
	equal := func(name string, want []string) {
		t.Helper()
		got := slices.Sorted(slices.Values(schemas[name].Enum))
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s is %v, the domain has %v", name, got, want)
		}
	}
	equal("SessionState", texts(session.States()))
	equal("Reason", texts(session.Reasons()))
	equal("EventKind", texts([]session.EventKind{
		session.EventState, session.EventProgress, session.EventLog, session.EventMachineCreated, session.EventMachineDestroyed,
		session.EventCredentialStored, session.EventCredentialDelivered, session.EventCredentialDeleted,
	}))
	for _, code := range schemas["ProblemCode"].Enum {
		status, title := problemKind(ProblemCode(code))
		if status == 500 && code != string(ProblemCodeInternal) || title == "" {
			t.Errorf("the code %s has no status of its own", code)
		}
	}
}

func texts[T ~string](in []T) []string {
	var out []string
	for _, v := range in {
		out = append(out, string(v))
	}
	return out
}

func TestEveryStateHasASentence(t *testing.T) {
	seen := make(map[string]session.State)
	for _, s := range session.States() {
		m := message(s, session.ReasonUpstream)
		if other, ok := seen[m]; ok || !strings.HasSuffix(m, ".") {
			t.Errorf("%s says %q, like %s", s, m, other)
		}
		seen[m] = s
	}
}
