// Package settings reads what a server is to do from the command line, the
// environment and a YAML file. Every setting has one entry in one table, from
// which its three names follow: the flag --machine-memory, the variable
// ANTEROOM_MACHINE_MEMORY and the key machine_memory. A flag goes before the
// environment, that before the file, that before the default.
package settings

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/server"
)

// EnvPrefix begins the name of every environment variable.
const EnvPrefix = "ANTEROOM_"

// ErrSetting says that a flag, a variable or the file cannot be used. Its text
// names which, and what is allowed.
var ErrSetting = errors.New("settings")

// settingError keeps the sentinel out of the text, which people read.
type settingError struct{ text string }

func (e *settingError) Error() string        { return e.text }
func (e *settingError) Is(target error) bool { return target == ErrSetting }

func refuse(format string, args ...any) error {
	return &settingError{fmt.Sprintf(format, args...)}
}

// source says where a value comes from; a later one goes before an earlier one.
type source int

const (
	fromDefault source = iota
	fromFile
	fromEnv
	fromFlag
)

// setting is one entry of the table.
type setting struct {
	flag   string // its name on the command line
	usage  string
	value  value
	group  string // the mapping that it is in, in the file; usually none
	secret bool   // refused on the command line
	none   bool   // empty means something, also as an environment variable
	from   source
}

// key is its name in the file: the flag's, with underscores.
func (s *setting) key() string {
	key := strings.ReplaceAll(s.flag, "-", "_")
	if s.group != "" {
		return s.group + "." + key
	}
	return key
}

// env is the name of its environment variable.
func (s *setting) env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_"))
}

// Settings are a server's, with those of its log. It is filled by Load.
type Settings struct {
	Server    server.Config
	LogFormat string // "text" or "json"
	LogLevel  string // "debug", "info", "warn", "error"

	configFile    string
	upstreamsFile string
	table         []*setting
}

// New returns settings that all have their defaults.
func New() *Settings {
	s := &Settings{Server: server.Defaults(), LogFormat: "text", LogLevel: "info"}
	s.table = s.entries()
	return s
}

// Flags adds the settings' flags, or only the named ones of them, and --config.
func (s *Settings) Flags(flags *pflag.FlagSet, only ...string) {
	flags.StringVar(&s.configFile, "config", "", "YAML file with settings [ANTEROOM_CONFIG]")
	for _, e := range s.table {
		if len(only) > 0 && !slices.Contains(only, e.flag) {
			continue
		}
		if e.secret {
			flags.Var(refusedFlag{e}, e.flag, "")
			_ = flags.MarkHidden(e.flag)
			continue
		}
		f := flags.VarPF(flagValue{e}, e.flag, "", fmt.Sprintf("%s [%s]", e.usage, e.env()))
		if e.value.Type() == "bool" {
			f.NoOptDefVal = "true"
		}
	}
}

// Load reads the file and the environment after the command line has been
// parsed, and checks that the settings fit together. Errors are ErrSetting.
func (s *Settings) Load() error {
	if s.configFile == "" {
		s.configFile = os.Getenv(EnvPrefix + "CONFIG")
	}
	if s.configFile != "" {
		if err := s.readFile(s.configFile); err != nil {
			return err
		}
	}
	for _, e := range s.table {
		text, given := os.LookupEnv(e.env())
		// Empty is as good as not there: what starts containers often sets
		// variables to nothing.
		if !given || text == "" && !e.none || e.from > fromEnv {
			continue
		}
		if err := e.set(fromEnv, text); err != nil {
			return refuse("environment variable %s: %v", e.env(), err)
		}
	}
	if err := s.readUpstreams(); err != nil {
		return err
	}
	if err := s.Server.Check(); err != nil {
		return refuse("%v", err)
	}
	return nil
}

// set gives a setting a value. A list given by a flag twice grows; one from
// another source replaces what was there.
func (e *setting) set(from source, text string) error {
	if l, ok := e.value.(lister); ok && e.from == from {
		return l.add(text)
	}
	if err := e.value.Set(text); err != nil {
		return err
	}
	e.from = from
	return nil
}

// readUpstreams takes the upstreams from a file of their own, and holds them to
// their rules wherever they come from. Where both the list and the file are
// given, the source that goes before the other wins.
func (s *Settings) readUpstreams() error {
	list, file := s.entry("upstreams"), s.entry("upstreams-file")
	where := list.env()
	switch {
	case s.upstreamsFile != "" && list.from < file.from:
		where = s.upstreamsFile
		if err := s.readUpstreamsFile(); err != nil {
			return err
		}
	case s.upstreamsFile != "" && list.from == file.from:
		return refuse("upstreams and upstreams-file exclude each other: give one of them")
	case list.from == fromFile:
		where = s.configFile + ": " + list.key()
	}
	if _, err := egress.ParseUpstreams(s.Server.Upstreams); err != nil {
		return refuse("%s: %v", where, err)
	}
	if _, err := s.Server.Ways(); err != nil {
		return refuse("egress: %v", err)
	}
	return nil
}

func (s *Settings) readUpstreamsFile() error {
	text, err := readLimited(s.upstreamsFile)
	if err != nil {
		return refuse("upstreams-file: %v", err)
	}
	s.Server.Upstreams = nil
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			s.Server.Upstreams = append(s.Server.Upstreams, egress.UpstreamURL(line))
		}
	}
	return nil
}

func (s *Settings) entry(flag string) *setting {
	i := slices.IndexFunc(s.table, func(e *setting) bool { return e.flag == flag })
	return s.table[i]
}

// flagValue gives a setting from the command line.
type flagValue struct{ *setting }

func (f flagValue) Set(text string) error { return f.set(fromFlag, text) }
func (f flagValue) String() string {
	if f.setting == nil { // pflag asks the zero value for its default
		return ""
	}
	return f.value.String()
}
func (f flagValue) Type() string { return f.value.Type() }

// refusedFlag is a setting that must not be given on the command line.
type refusedFlag struct{ *setting }

func (f refusedFlag) Set(string) error {
	return fmt.Errorf("it may hold a password, which every user of this computer could read in the list of processes: set %s in the YAML file, the variable %s, or --%s-file FILE", f.key(), f.env(), f.flag)
}
func (refusedFlag) String() string { return "" }
func (refusedFlag) Type() string   { return "list" }
