package settings

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/anteroom/anteroom/internal/egress"
)

// load parses a command line, with a file of the given content if there is any.
func load(t *testing.T, yaml string, env map[string]string, args ...string) (*Settings, error) {
	t.Helper()
	for _, pair := range os.Environ() { // of whoever runs the tests
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, EnvPrefix) {
			t.Setenv(name, "")
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for k, v := range env {
		t.Setenv(k, v)
	}
	if yaml != "" {
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", file)
	}
	s := New()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.Flags(flags)
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	return s, s.Load()
}

func TestPrecedence(t *testing.T) {
	const yaml = "session_time: 10m\n"
	env := map[string]string{"ANTEROOM_SESSION_TIME": "20m"}
	for _, tt := range []struct {
		name string
		yaml string
		env  map[string]string
		args []string
		want time.Duration
	}{
		{"default", "", nil, nil, 30 * time.Minute},
		{"file", yaml, nil, nil, 10 * time.Minute},
		{"environment before file", yaml, env, nil, 20 * time.Minute},
		{"flag before both", yaml, env, []string{"--session-time=40m"}, 40 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := load(t, tt.yaml, tt.env, tt.args...)
			if err != nil || s.Server.SessionTime != tt.want {
				t.Fatalf("session time %s, %v; want %s", s.Server.SessionTime, err, tt.want)
			}
		})
	}
}

func TestEmptyVariables(t *testing.T) {
	const yaml = "user: ann\nlisten: 127.0.0.1:9090\n"
	s, err := load(t, yaml, map[string]string{"ANTEROOM_USER": "", "ANTEROOM_LISTEN": ""})
	if err != nil || s.Server.User != "" || s.Server.Listen != "127.0.0.1:9090" {
		t.Errorf("user %q, listen %q, %v: nobody is a choice, no address is none", s.Server.User, s.Server.Listen, err)
	}
	if s, err = load(t, yaml, map[string]string{"ANTEROOM_USER": ""}, "--user=bob"); err != nil || s.Server.User != "bob" {
		t.Errorf("user %q, %v", s.Server.User, err)
	}
}

func TestEverySettingHasThreeNames(t *testing.T) {
	s := New()
	seen := map[string]bool{}
	for _, e := range s.entries() {
		for _, name := range []string{e.flag, e.key(), e.env()} {
			if seen[name] && name != e.flag { // one word is flag and key
				t.Errorf("%q names two settings", name)
			}
			seen[name] = true
		}
		if e.usage == "" {
			t.Errorf("--%s has no usage", e.flag)
		}
	}
}

func TestKinds(t *testing.T) {
	s, err := load(t, `
listen: 127.0.0.1:9090   # text
cold: true
hosts: [a.example, "b.example"]
machine_memory: 1.5GiB
min_free_memory: 1073741824
machine_cpus: 2
starts_at_once: 7
warm_machines: 0
max_machines: 12
max_waiting: 0
languages: |-
  sv-SE,sv
egress:
  upstreams: ["http://u:p%40ss@proxy.example:8080"]
log_format: json
user: ""
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := s.Server
	if c.Listen != "127.0.0.1:9090" || !c.Cold || len(c.Hosts) != 2 || c.Hosts[1] != "b.example" ||
		c.MachineMemory != 1536<<20 || c.MinFreeMemory != 1<<30 || c.MachineCPUs != 2 || c.StartsAtOnce != 7 ||
		c.WarmMachines != 0 || c.MaxMachines != 12 || c.MaxWaiting != 0 ||
		c.Languages != "sv-SE,sv" || s.LogFormat != "json" || c.User != "" {
		t.Errorf("%+v", c)
	}
	if len(c.Upstreams) != 1 || string(c.Upstreams[0]) != "http://u:p%40ss@proxy.example:8080" {
		t.Errorf("upstreams: %d", len(c.Upstreams))
	}
}

func TestLists(t *testing.T) {
	s, err := load(t, "hosts: [file.example]\n", nil, "--hosts=a.example, b.example", "--hosts", "c.example")
	if err != nil || strings.Join(s.Server.Hosts, " ") != "a.example b.example c.example" {
		t.Errorf("%q, %v", s.Server.Hosts, err)
	}
	s, err = load(t, "hosts: [file.example]\n", map[string]string{"ANTEROOM_HOSTS": "d.example,e.example"})
	if err != nil || strings.Join(s.Server.Hosts, " ") != "d.example e.example" {
		t.Errorf("%q, %v", s.Server.Hosts, err)
	}
}

func TestPathsAreAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	s, err := load(t, "", nil, "--state", "st", "--key-file", "")
	if err != nil || s.Server.StateDir != filepath.Join(dir, "st") || s.Server.KeyFile != "" {
		t.Errorf("%q, %q, %v", s.Server.StateDir, s.Server.KeyFile, err)
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		yaml string
		env  map[string]string
		args []string
		want []string // all are in the error
	}{
		{"unknown key", "listen: 127.0.0.1:1\nlisten_on: x\n", nil, nil, []string{"config.yaml:2:", `unknown key "listen_on"`, "allowed keys: ", "listen,", "egress,"}},
		{"unknown key in a group", "egress:\n  proxy: x\n", nil, nil, []string{"config.yaml:2:", `"egress.proxy"`, "allowed keys: allow_names, connect_time"}},
		{"group without a mapping", "egress: direct\n", nil, nil, []string{"config.yaml:1:", "egress must be a mapping"}},
		{"not a mapping", "- a\n", nil, nil, []string{"config.yaml:1:", "must be a mapping"}},
		{"two documents", "cold: true\n---\ncold: false\n", nil, nil, []string{"more than one YAML document"}},
		{"a key twice", "cold: true\ncold: false\n", nil, nil, []string{"config.yaml:2:", "cold"}},
		{"bool", "\ncold: maybe\n", nil, nil, []string{"config.yaml:2: cold: must be true or false"}},
		{"text", "listen: 8080\n", nil, nil, []string{"config.yaml:1: listen: must be text"}},
		{"list", "hosts: a.example\n", nil, nil, []string{"config.yaml:1: hosts: must be a list"}},
		{"list item", "hosts: [1]\n", nil, nil, []string{"config.yaml:1: hosts: each item of the list must be text"}},
		{"duration", "session_time: 30\n", nil, nil, []string{"config.yaml:1: session_time: must be a length of time"}},
		{"duration text", "session_time: soon\n", nil, nil, []string{`config.yaml:1: session_time: "soon" is not a length of time, such as 30m`}},
		{"size", "machine_memory: [1]\n", nil, nil, []string{"config.yaml:1: machine_memory: must be a size"}},
		{"size text", "machine_memory: much\n", nil, nil, []string{`"much" is not a size, such as 1.5GiB`}},
		{"integer", "starts_at_once: 1.5\n", nil, nil, []string{"config.yaml:1: starts_at_once: must be a number"}},
		{"choice", "log_format: xml\n", nil, nil, []string{`log_format: "xml" is not one of text, json`}},
		{"null", "listen:\n", nil, nil, []string{"config.yaml:1: listen: must be text"}},
		{"syntax", "a: [\n", nil, nil, []string{"config.yaml:1:"}},
		{"deep", strings.Repeat("[", 40), nil, nil, []string{"nested deeper"}},
		{"checked though a flag wins", "session_time: soon\n", nil, []string{"--session-time=5m"}, []string{"config.yaml:1: session_time"}},
		{"environment", "", map[string]string{"ANTEROOM_COLD": "perhaps"}, nil, []string{"environment variable ANTEROOM_COLD", "neither true nor false"}},
		{"no such file", "", map[string]string{"ANTEROOM_CONFIG": "/nonexistent/x.yaml"}, nil, []string{"/nonexistent/x.yaml"}},
		{"two upstreams", "egress: {upstreams: [direct, direct]}\n", nil, nil, []string{"egress.upstreams", "beside other upstreams"}},
		{"list and file", "egress: {upstreams: [direct], upstreams_file: /x}\n", nil, nil, []string{"exclude each other"}},
		{"settings that do not fit", "", nil, []string{"--tls-cert=/x"}, []string{"tls-cert and tls-key"}},
		{"elsewhere without TLS", "listen: 0.0.0.0:80\n", nil, nil, []string{"needs HTTPS", "tls-cert", "behind-proxy"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.yaml, tt.env, tt.args...)
			if !errors.Is(err, ErrSetting) {
				t.Fatalf("%v is not ErrSetting", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q\nlacks %q", err, want)
				}
			}
		})
	}
}

func TestUpstreamsStaySecret(t *testing.T) {
	const url = "http://user:s3cr3t@proxy.example:99999"
	_, fromFile := load(t, "egress: {upstreams: ['"+url+"']}\n", nil)
	_, fromEnv := load(t, "", map[string]string{"ANTEROOM_UPSTREAMS": url})
	_, fromFlag := load(t, "", nil, "--upstreams", url)
	for name, err := range map[string]error{"file": fromFile, "environment": fromEnv} {
		if err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if fromFlag == nil || !strings.Contains(fromFlag.Error(), "list of processes") {
		t.Errorf("flag: %v", fromFlag)
	}
	s, err := load(t, "", map[string]string{"ANTEROOM_UPSTREAMS": "http://user:s3cr3t@proxy.example:8080"})
	if err != nil {
		t.Fatal(err)
	}
	if shown := s.entry("upstreams").value.String(); strings.Contains(shown, "s3cr3t") {
		t.Errorf("printed as %q", shown)
	}
}

func TestUpstreamsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "upstream")
	if err := os.WriteFile(file, []byte("# the office's\n\nhttp://u:p@proxy.example:8080\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A flag goes before the list in the file, the list in the environment before the file's.
	s, err := load(t, "egress: {upstreams: [direct]}\n", nil, "--upstreams-file", file)
	if err != nil || len(s.Server.Upstreams) != 1 || s.Server.Upstreams[0] != "http://u:p@proxy.example:8080" {
		t.Errorf("%d upstreams, %v", len(s.Server.Upstreams), err)
	}
	s, err = load(t, "egress: {upstreams_file: "+file+"}\n", map[string]string{"ANTEROOM_UPSTREAMS": "direct"})
	if err != nil || s.Server.Upstreams[0] != egress.Direct {
		t.Errorf("%v, %v", s.Server.Upstreams, err)
	}
	if err := os.WriteFile(file, []byte("# nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = load(t, "", nil, "--upstreams-file", file); err == nil || !strings.Contains(err.Error(), "there is no upstream") {
		t.Errorf("empty file: %v", err)
	}
}

func TestOnlySomeFlags(t *testing.T) {
	s := New()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.Flags(flags, "state")
	if flags.Lookup("state") == nil || flags.Lookup("config") == nil || flags.Lookup("listen") != nil {
		t.Error("other flags than were named")
	}
}

func FuzzFile(f *testing.F) {
	f.Add([]byte("listen: 127.0.0.1:8080\nhosts: [a, b]\negress:\n  upstreams: [direct]\n"))
	f.Add([]byte("machine_memory: 1.5GiB\nsession_time: 30m\nmachine_cpus: .inf\n"))
	f.Add([]byte("&a [*a]"))
	f.Add([]byte("? {listen: x} : y"))
	f.Add([]byte("cold: !!bool true"))
	f.Fuzz(func(t *testing.T, content []byte) {
		s := New()
		if err := s.readYAML("f.yaml", content); err != nil {
			if !errors.Is(err, ErrSetting) || !strings.HasPrefix(err.Error(), "f.yaml:") {
				t.Fatalf("%v", err)
			}
			return
		}
		// What was accepted is printed and read again as the same.
		for _, e := range s.table {
			if e.from != fromFile || e.value.Type() == "list" {
				continue
			}
			text := e.value.String()
			if err := e.value.Set(text); err != nil && e.value.Type() != "size" || e.value.String() != text {
				t.Fatalf("%s: %q is read as %q: %v", e.key(), text, e.value.String(), err)
			}
		}
	})
}
