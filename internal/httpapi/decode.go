package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"

	"github.com/anteroom/anteroom/internal/guestapi"
)

const maxDepth = 8

// decode reads a request's JSON body into v, strictly: its media type is JSON,
// it has no unknown fields, it is not nested deeper than anything here is, and
// nothing follows it. If it is not, decode answers and returns false.
func (s *Server) decode(w http.ResponseWriter, r *http.Request, v any) bool {
	if mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mt != "application/json" {
		s.problem(w, r, ProblemCodeUnsupportedMediaType, "Send the body as application/json.")
		return false
	}
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		s.tooLarge(w, r)
		return false
	}
	if err != nil {
		s.problem(w, r, ProblemCodeInvalidJSON, "The body did not arrive as a whole.")
		return false
	}
	if err := decodeStrict(body, v); err != nil {
		s.problem(w, r, ProblemCodeInvalidJSON, err.Error())
		return false
	}
	return true
}

// decodeStrict returns errors that are sentences for the client.
func decodeStrict(body []byte, v any) error {
	if depth(body) > maxDepth {
		return errors.New("The body is nested too deeply.") //nolint:staticcheck // a sentence for the client
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return sentence(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("Something follows the JSON value.") //nolint:staticcheck // a sentence for the client
	}
	return nil
}

// sentence says what is wrong with a body without the package's own words.
func sentence(err error) error {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("The body is not JSON: byte %d.", syntax.Offset) //nolint:staticcheck // a sentence for the client
	case errors.As(err, &typ):
		return fmt.Errorf("The field %q has the wrong type.", printable(typ.Field)) //nolint:staticcheck // a sentence for the client
	case errors.Is(err, io.EOF):
		return errors.New("The body is empty.") //nolint:staticcheck // a sentence for the client
	}
	if _, field, ok := strings.Cut(err.Error(), "unknown field "); ok {
		return fmt.Errorf("The field %s is not known.", printable(field)) //nolint:staticcheck // a sentence for the client
	}
	return errors.New("The body is not JSON.") //nolint:staticcheck // a sentence for the client
}

// depth is how deeply a JSON text is nested. The decoder itself goes down to
// 10,000 levels.
func depth(b []byte) int {
	deepest, level, inString := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

// Bounds of what a viewer's size may become.
const (
	minWidth, maxWidth   = 320, 3840
	minHeight, maxHeight = 240, 2160
	maxLanguages         = 10
)

var (
	languageTag = regexp.MustCompile(`^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$`)
	zoneName    = regexp.MustCompile(`^[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}$`)
)

// view takes what the browser told about itself. What it does not understand
// it leaves out: nobody should fail to sign in for an odd language tag.
func view(b StartSession) guestapi.View {
	var v guestapi.View
	if b.Locale != nil {
		v.Locale = posixLocale(*b.Locale)
	}
	if b.Languages != nil {
		var tags []string
		for _, tag := range *b.Languages {
			if len(tags) < maxLanguages && len(tag) <= 35 && languageTag.MatchString(tag) {
				tags = append(tags, tag)
			}
		}
		v.Languages = strings.Join(tags, ",")
	}
	if b.TimeZone != nil && len(*b.TimeZone) <= 64 && zoneName.MatchString(*b.TimeZone) {
		v.TimeZone = *b.TimeZone
	}
	if b.Width != nil && *b.Width > 0 {
		v.Width = min(max(*b.Width, minWidth), maxWidth)
	}
	if b.Height != nil && *b.Height > 0 {
		v.Height = min(max(*b.Height, minHeight), maxHeight)
	}
	return v
}

// posixLocale makes "sv_SE.UTF-8" of "sv-SE"; "" of a tag that names no
// country, because there is no such locale.
func posixLocale(tag string) string {
	if len(tag) > 35 || !languageTag.MatchString(tag) {
		return ""
	}
	parts := strings.Split(tag, "-")
	for _, p := range parts[1:] {
		if len(p) == 1 { // extensions follow
			break
		}
		if len(p) == 2 {
			return strings.ToLower(parts[0]) + "_" + strings.ToUpper(p) + ".UTF-8"
		}
	}
	return ""
}

// validID says whether something can be an id at all. What cannot is not found.
func validID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// validKey says whether something can be an Idempotency-Key.
func validKey(k string) bool {
	if k == "" || len(k) > 128 {
		return false
	}
	for i := range len(k) {
		if k[i] < ' ' || k[i] > '~' {
			return false
		}
	}
	return true
}
