package provider

import "regexp"

const redacted = "[redacted]"

// secretParams are the parameters of sign-in addresses, and the keys of JSON
// answers, that must not be kept: by name, and by what a name ends in.
const secretParams = `code|state|nonce|code_challenge|code_verifier|id_token_hint|assertion|device_code|user_code|session|key|` +
	`[a-z0-9_-]*(?:token|secret|password|api_?key)`

type rule struct {
	re   *regexp.Regexp
	with string
}

// redactions are applied in this order, to every tool's lines.
var redactions = []rule{
	// user:password@ in addresses
	{regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*://)[^\s/?#@"']+@`), `${1}` + redacted + `@`},
	// parameters of addresses and forms, also percent-encoded into another
	{regexp.MustCompile(`(?i)(^|[?&#;\s"'(,]|%26|%3F|%23|\\u0026)((?:` + secretParams + `)(?:=|%3D))(?:[^&#\s"'%\\)<>]|%(?:2[0-57-9A-F]|3[0-9A-E]|[013-9A-F][0-9A-F]))+`), `${1}${2}` + redacted},
	// JSON members, also escaped in a string
	{regexp.MustCompile(`(?i)(\\?["'](?:` + secretParams + `)\\?["']\s*:\s*\\?["'])[^"'\\]+`), `${1}` + redacted},
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{16,}`), `${1} ` + redacted},
	// a JWT, or the beginning of one
	{regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){0,2}`), redacted},
	// a code with the state behind it, as pages show them to be pasted
	{regexp.MustCompile(`\b[A-Za-z0-9_-]{16,}#[A-Za-z0-9_-]{16,}`), redacted},
}

// Redactor returns what takes secrets out of a line that f's tool printed, and
// leaves the rest readable. Beside what f knows (Redact) and what is known by
// name or shape, an unbroken word of 32 characters or more that mixes letters
// and digits, or of 40 that mixes cases, counts as a secret, unless it is a UUID.
// f must be valid. What is returned may be called concurrently.
func (f *File) Redactor() func(line string) string {
	rules := make([]rule, 0, len(f.Redact)+len(redactions))
	for _, p := range f.Redact {
		rules = append(rules, rule{regexp.MustCompile(p), redacted})
	}
	rules = append(rules, redactions...)
	return func(line string) string {
		for _, x := range rules {
			line = x.re.ReplaceAllString(line, x.with)
		}
		return redactLong(line)
	}
}

// The lengths from which an unbroken word is taken for a secret.
const (
	minLong  = 32
	minMixed = 40
)

// redactLong replaces long words of the base64url alphabet.
func redactLong(line string) string {
	var out []byte
	done := 0
	for i := 0; i < len(line); {
		if !wordByte(line[i]) {
			i++
			continue
		}
		end := i
		digits, lower, upper := 0, 0, 0
		for ; end < len(line) && wordByte(line[end]); end++ {
			switch c := line[end]; {
			case c >= '0' && c <= '9':
				digits++
			case c >= 'a' && c <= 'z':
				lower++
			case c >= 'A' && c <= 'Z':
				upper++
			}
		}
		mixed := digits > 0 && lower+upper > 0 || end-i >= minMixed && lower > 0 && upper > 0
		if end-i >= minLong && mixed && !isUUID(line[i:end]) {
			out = append(append(out, line[done:i]...), redacted...)
			done = end
		}
		i = end
	}
	if done == 0 {
		return line
	}
	return string(append(out, line[done:]...))
}

func wordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_'
}

func isUUID(s string) bool {
	return len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-'
}
