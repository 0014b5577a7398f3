package egress

import (
	"fmt"
	"slices"
	"strings"
)

// Names is a list of names as rules are written: "example.com" is that name,
// ".example.com" is that name and all below it.
type Names []string

// maxNames is how long one list may be.
const maxNames = 1000

// Check returns ErrConfig, with the entry, if one cannot be a name of a
// destination.
func (n Names) Check() error {
	if len(n) > maxNames {
		return fmt.Errorf("%w: a list of names has more than %d", ErrConfig, maxNames)
	}
	for _, entry := range n {
		name := strings.TrimPrefix(entry, ".")
		if name != strings.ToLower(name) || checkLabels(name) != nil {
			return fmt.Errorf("%w: %.100q is not a name: write example.com, or .example.com for it and all below it, in lower case", ErrConfig, entry)
		}
	}
	return nil
}

// match says whether a host, in lower case, is on the list.
func (n Names) match(host string) bool {
	return slices.ContainsFunc(n, func(entry string) bool {
		below, ok := strings.CutPrefix(entry, ".")
		if !ok {
			return host == entry
		}
		return host == below || strings.HasSuffix(host, entry)
	})
}

// Rules says which names may be reached. A name on Deny may not. Where Allow
// has entries, nothing else may, addresses included.
type Rules struct {
	Allow, Deny Names
}

// Check returns ErrConfig if an entry cannot be a name.
func (r Rules) Check() error {
	if err := r.Allow.Check(); err != nil {
		return err
	}
	return r.Deny.Check()
}

// permits returns an error with NameDenied for what the rules forbid.
func (r Rules) permits(t target) error {
	if r.Deny.match(t.host) {
		return refusal(NameDenied, "a rule denies the name")
	}
	if len(r.Allow) > 0 && !r.Allow.match(t.host) {
		return refusal(NameDenied, "no rule allows the name")
	}
	return nil
}
