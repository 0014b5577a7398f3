package provider

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxCredentials is how many files one provider may have.
const MaxCredentials = 16

// KeptDir is the directory below the home directory where the harmless
// content of private directories persists. No provider file may name a path
// in it.
const KeptDir = ".local/share/anteroom"

const (
	maxArgs    = 16
	maxText    = 256
	maxEnv     = 32
	maxList    = 64
	maxPath    = 200
	maxPattern = 512
	maxStdin   = 4 << 10
	maxSeed    = 16 << 10
	minTimeout = time.Minute
	maxTimeout = time.Hour
	maxPointer = 256
)

var (
	nameRE     = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)
	credNameRE = regexp.MustCompile(`^[a-z0-9_.-]{1,64}$`)
	programRE  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)
	hookRE     = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	envRE      = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	labelRE    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	globRE     = regexp.MustCompile(`^\*?[^*/]+\*?$`)
)

// reservedEnv are the variables that the machine itself sets.
var reservedEnv = map[string]bool{
	"HOME": true, "USER": true, "LOGNAME": true, "SHELL": true, "PATH": true, "BROWSER": true, "DISPLAY": true,
	"HTTP_PROXY": true, "HTTPS_PROXY": true, "ALL_PROXY": true, "NO_PROXY": true,
	"http_proxy": true, "https_proxy": true, "all_proxy": true, "no_proxy": true,
}

// problem is one broken rule. field is a path such as "url.hosts[0]".
type problem struct{ field, reason string }

// checker keeps the first problem and ignores what follows.
type checker struct{ first *problem }

func (c *checker) fail(field, format string, args ...any) {
	if c.first == nil {
		c.first = &problem{field, fmt.Sprintf(format, args...)}
	}
}

func (c *checker) that(ok bool, field, format string, args ...any) bool {
	if !ok {
		c.fail(field, format, args...)
	}
	return ok
}

// check returns the first broken rule, or nil.
func (f *File) check() *problem {
	c := &checker{}
	c.that(nameRE.MatchString(f.Name), "name", "must begin with a-z and hold at most 32 of a-z, 0-9, _ and -")
	c.that(len(f.Aliases) <= 8, "aliases", "more than 8")
	for i, a := range f.Aliases {
		field := fmt.Sprintf("aliases[%d]", i)
		c.that(nameRE.MatchString(a), field, "must begin with a-z and hold at most 32 of a-z, 0-9, _ and -")
		c.that(a != f.Name && !slices.Contains(f.Aliases[:i], a), field, "is there twice")
	}
	c.text("title", f.Title, 64)
	c.text("vendor", f.Vendor, 64)
	c.text("version", f.Version, 32)
	u, err := url.Parse(f.Terms)
	c.that(err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && len(f.Terms) <= maxText, "terms", "must be an https URL")
	c.login(&f.Login, &f.URL)
	c.url(&f.URL, f.Hosts)
	c.hosts("hosts", f.Hosts, 1, maxList)
	c.domains("reach.allow", f.Reach.Allow)
	c.domains("reach.deny", f.Reach.Deny)
	c.credentials(f)
	c.redact(f.Redact)
	c.value("account", f.Account, false, f)
	c.value("expiry", f.Expiry, true, f)
	c.value("fresh", f.Fresh, true, f)
	c.target(f)
	if f.HomeEnv != nil {
		c.homeEnv(f, f.HomeEnv)
	}
	c.that(len(f.Refresh.Revokes) <= 8, "refresh.revokes", "more than 8")
	for i, r := range f.Refresh.Revokes {
		c.text(fmt.Sprintf("refresh.revokes[%d]", i), r, maxText)
	}
	c.that(len(f.CAEnv) <= 8, "ca_env", "more than 8")
	for i, n := range f.CAEnv {
		c.envName(fmt.Sprintf("ca_env[%d]", i), n)
	}
	return c.first
}

func (c *checker) text(field, s string, limit int) {
	c.that(s != "" && s == strings.TrimSpace(s), field, "is missing, or has spaces around it")
	c.that(len(s) <= limit, field, "longer than %d bytes", limit)
	c.that(printable(s), field, "holds characters that cannot be shown")
}

// printable says that s is UTF-8 without control characters and without the
// format characters that can make text look like other text.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func (c *checker) login(l *Login, u *URL) {
	c.argv("login.argv", l.Argv)
	if len(l.Warm) > 0 {
		c.argv("login.warm", l.Warm)
	}
	c.env("login.env", l.Env)
	switch l.Dialogue {
	case "", "none":
		c.that(l.Stdin == "", "login.stdin", `only with the dialogue "script"`)
	case "script":
		c.that(l.Stdin != "" && len(l.Stdin) <= maxStdin, "login.stdin", "must have 1 to %d bytes", maxStdin)
	case "acp":
		c.that(l.Stdin == "", "login.stdin", `only with the dialogue "script"`)
		c.that(!l.TTY, "login.tty", `not with the dialogue "acp": the terminal would echo it`)
		c.text("login.acp_method", l.ACPMethod, 64)
	default:
		c.fail("login.dialogue", `must be "none", "script" or "acp"`)
	}
	if l.Dialogue != "acp" {
		c.that(l.ACPMethod == "", "login.acp_method", `only with the dialogue "acp"`)
	}
	switch l.Flow {
	case "loopback", "poll":
		c.that(u.CodePattern == "", "url.code_pattern", `only with the flow "device"`)
	case "device":
		c.that(u.CodePattern != "", "url.code_pattern", `the flow "device" needs it`)
	case "paste":
		c.fail("login.flow", `"paste" is not supported: nothing would carry the code from the page to the tool`)
	default:
		c.fail("login.flow", `must be "loopback", "device" or "poll"`)
	}
	d, err := time.ParseDuration(l.Timeout)
	c.that(err == nil, "login.timeout", `must be a duration such as "15m"`)
	c.that(d >= minTimeout && d <= maxTimeout, "login.timeout", "must be between %v and %v", minTimeout, maxTimeout)
}

func (c *checker) argv(field string, argv []string) {
	if !c.that(len(argv) > 0 && len(argv) <= maxArgs, field, "must have 1 to %d words", maxArgs) {
		return
	}
	c.that(programRE.MatchString(argv[0]), field+"[0]", "must be a program's name without a directory")
	for i, a := range argv {
		c.that(len(a) <= maxText && printable(a), fmt.Sprintf("%s[%d]", field, i), "longer than %d bytes, or not printable", maxText)
	}
}

func (c *checker) env(field string, env map[string]string) {
	c.that(len(env) <= maxEnv, field, "more than %d variables", maxEnv)
	for _, n := range sortedKeys(env) {
		c.envName(field+"."+n, n)
		c.that(len(env[n]) <= 1024 && printable(env[n]), field+"."+n, "longer than 1024 bytes, or not printable")
	}
}

func (c *checker) envName(field, n string) {
	c.that(envRE.MatchString(n), field, "not the name of an environment variable")
	c.that(!reservedEnv[n] && !strings.HasPrefix(n, "LD_") && !strings.HasPrefix(n, "ANTEROOM_"), field, "is set by the machine itself")
}

func (c *checker) url(u *URL, reachable []string) {
	c.that(len(u.Hooks) > 0 || u.Pattern != "", "url", "needs hooks or a pattern")
	c.that(len(u.Hooks) <= 8, "url.hooks", "more than 8")
	for i, h := range u.Hooks {
		field := fmt.Sprintf("url.hooks[%d]", i)
		c.that(HookName(h), field, `must be "BROWSER" or a program's name of a-z, 0-9 and - that is not taken`)
		c.that(!slices.Contains(u.Hooks[:i], h), field, "is there twice")
	}
	c.pattern("url.pattern", u.Pattern)
	c.pattern("url.code_pattern", u.CodePattern)
	c.hosts("url.hosts", u.Hosts, 1, 16)
	for i, h := range u.Hosts {
		c.that(slices.Contains(reachable, h), fmt.Sprintf("url.hosts[%d]", i), "is not in hosts")
	}
}

// HookName says whether a browser hook may have that name: "BROWSER" for the
// environment variable, or a program's name that means no other program of
// the machine.
func HookName(n string) bool {
	switch n {
	case "BROWSER":
		return true
	case "init", "sh", "bash", "env", "node":
		return false
	}
	return hookRE.MatchString(n) && !strings.HasPrefix(n, "anteroom")
}

func (c *checker) pattern(field, p string) {
	if p == "" {
		return
	}
	c.that(len(p) <= maxPattern, field, "longer than %d bytes", maxPattern)
	re, err := regexp.Compile(p)
	if !c.that(err == nil, field, "not a regular expression: %v", err) {
		return
	}
	c.that(re.NumSubexp() == 1, field, "must have exactly one group, has %d", re.NumSubexp())
}

func (c *checker) redact(patterns []string) {
	c.that(len(patterns) <= 16, "redact", "more than 16")
	for i, p := range patterns {
		field := fmt.Sprintf("redact[%d]", i)
		c.that(len(p) <= maxPattern, field, "longer than %d bytes", maxPattern)
		re, err := regexp.Compile(p)
		if c.that(err == nil, field, "not a regular expression: %v", err) {
			c.that(!re.MatchString(""), field, "matches where there is nothing")
		}
	}
}

func (c *checker) hosts(field string, hosts []string, least, most int) {
	c.that(len(hosts) >= least && len(hosts) <= most, field, "must have %d to %d names", least, most)
	for i, h := range hosts {
		f := fmt.Sprintf("%s[%d]", field, i)
		c.that(dnsName(h), f, "must be a lower-case DNS name with a dot in it, without scheme, port or final dot")
		c.that(!slices.Contains(hosts[:i], h), f, "is there twice")
	}
}

// domains checks names that may begin with a dot, for all below them.
func (c *checker) domains(field string, names []string) {
	plain := make([]string, len(names))
	for i, n := range names {
		plain[i] = strings.TrimPrefix(n, ".")
	}
	c.hosts(field, plain, 0, maxList)
}

func dnsName(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil || len(h) > 253 {
		return false
	}
	labels := strings.Split(h, ".")
	if len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if !labelRE.MatchString(l) {
			return false
		}
	}
	return strings.ContainsFunc(labels[len(labels)-1], unicode.IsLetter)
}

// cleanPath says that p is relative, clean, stays below where it is taken from,
// and is not in Anteroom's own directory.
func cleanPath(p string) bool {
	return p != "" && p != "." && len(p) <= maxPath && !path.IsAbs(p) && path.Clean(p) == p &&
		p != ".." && !strings.HasPrefix(p, "../") && !strings.Contains(p, `\`) && printable(p) &&
		!within(p, KeptDir) && !within(KeptDir, p)
}

// within says whether p is dir or below it; both are clean.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
