package httpapi

import (
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/ways"
)

// GetEgress answers where the user's machines leave from.
func (a api) GetEgress(w http.ResponseWriter, r *http.Request) {
	user := who(r).user
	way, open := a.cfg.Outward.Way(user.ID)
	out := Egress{Open: open, ExitAddress: optional(way.ExitAddress)}
	switch {
	case a.cfg.Outward.Direct():
		out.Kind = EgressKindDirect
	case a.cfg.Outward.Shared():
		out.Kind = EgressKindShared
	default:
		out.Kind = EgressKindPort
		port, err := a.cfg.Outward.PortOf(r.Context(), user.ID)
		if errors.Is(err, store.ErrNotFound) {
			break
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
		out.Port, out.State = optional(port.String()), optional(PortState(port.State))
		out.ExitAddress, out.CheckedAt, out.Reason = optional(port.ExitAddress), optionalTime(port.CheckedAt), optional(port.Reason)
	}
	a.json(w, r, http.StatusOK, out)
}

// admin says whether the user is an administrator, and answers if not, as if
// there were nothing.
func (a api) admin(w http.ResponseWriter, r *http.Request) bool {
	if who(r).user.Admin {
		return true
	}
	a.fail(w, r, store.ErrNotFound)
	return false
}

// ListPorts answers all upstream ports.
func (a api) ListPorts(w http.ResponseWriter, r *http.Request) {
	if !a.admin(w, r) {
		return
	}
	all, err := a.cfg.Outward.Ports(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	names, err := a.userNames(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusOK, PortList{
		Shared: a.cfg.Outward.Shared(),
		Ports:  convert(all, func(p ways.Port) Port { return apiPort(p, names) }),
	})
}

func (a api) userNames(r *http.Request) (map[string]string, error) {
	users, err := a.cfg.Auth.Users(r.Context())
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(users))
	for _, u := range users {
		names[u.ID] = u.Name
	}
	return names, nil
}

func apiPort(p ways.Port, names map[string]string) Port {
	return Port{
		Port:        p.String(),
		State:       PortState(p.State),
		User:        optional(names[p.UserID]),
		ExitAddress: optional(p.ExitAddress),
		Reason:      optional(p.Reason),
		AssignedAt:  optionalTime(p.AssignedAt),
		RestUntil:   optionalTime(p.RestUntil),
		CheckedAt:   optionalTime(p.CheckedAt),
		Configured:  p.Configured,
		InUse:       p.InUse,
		Refuses:     apiRefusals(p.Refuses),
	}
}

func apiRefusals(by map[string]string) []Refusal {
	out := make([]Refusal, 0, len(by))
	for _, provider := range slices.Sorted(maps.Keys(by)) {
		out = append(out, Refusal{Provider: provider, Name: by[provider]})
	}
	return out
}

// onPort checks who asks and what for; body, unless nil, is read into.
func (a api) onPort(w http.ResponseWriter, r *http.Request, port string, body any) (store.PortKey, bool) {
	if !a.admin(w, r) {
		return store.PortKey{}, false
	}
	key, err := store.ParsePortKey(port)
	if err != nil {
		a.fail(w, r, store.ErrNotFound)
		return key, false
	}
	return key, body == nil || a.decode(w, r, body)
}

// answerPort answers with a port that was changed.
func (a api) answerPort(w http.ResponseWriter, r *http.Request, p store.Port, err error) {
	if err != nil {
		a.failPort(w, r, err)
		return
	}
	names, err := a.userNames(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusOK, apiPort(ways.Port{Port: p, Configured: true}, names))
}

func (a api) failPort(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, ways.ErrShared):
		a.problem(w, r, ProblemCodeConflict, "All users of this server leave through one upstream: there are no ports to give.")
	case errors.Is(err, store.ErrInvalid):
		a.problem(w, r, ProblemCodeInvalidRequest, "exit_address must be an IPv4 or IPv6 address.")
	case errors.Is(err, store.ErrConflict):
		a.problem(w, r, ProblemCodeConflict, "Another user has that port. Release it first.")
	default:
		a.fail(w, r, err)
	}
}

// AssignPort moves a user to a port.
func (a api) AssignPort(w http.ResponseWriter, r *http.Request, port string) {
	var body AssignPort
	key, ok := a.onPort(w, r, port, &body)
	if !ok {
		return
	}
	user, err := a.cfg.Auth.UserByName(r.Context(), body.User)
	if errors.Is(err, store.ErrNotFound) {
		a.problem(w, r, ProblemCodeInvalidRequest, "There is no user of that name.")
		return
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	p, err := a.cfg.Outward.Assign(r.Context(), user.ID, key)
	a.answerPort(w, r, p, err)
}

// ReleasePort takes a port from its user.
func (a api) ReleasePort(w http.ResponseWriter, r *http.Request, port string) {
	var body ReleasePort
	key, ok := a.onPort(w, r, port, &body)
	if !ok {
		return
	}
	a.done(w, r, a.cfg.Outward.Release(r.Context(), key, body.Now != nil && *body.Now))
}

// QuarantinePort puts a port out of use.
func (a api) QuarantinePort(w http.ResponseWriter, r *http.Request, port string) {
	var body QuarantinePort
	key, ok := a.onPort(w, r, port, &body)
	if !ok {
		return
	}
	if body.Reason == "" || len(body.Reason) > 200 {
		a.problem(w, r, ProblemCodeInvalidRequest, "reason must have 1 to 200 bytes.")
		return
	}
	a.done(w, r, a.cfg.Outward.Quarantine(r.Context(), key, body.Reason))
}

func (a api) done(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		a.failPort(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// PinPort accepts an exit address.
func (a api) PinPort(w http.ResponseWriter, r *http.Request, port string) {
	var body PinPort
	key, ok := a.onPort(w, r, port, &body)
	if !ok {
		return
	}
	address := ""
	if body.ExitAddress != nil {
		address = *body.ExitAddress
	}
	p, err := a.cfg.Outward.Pin(r.Context(), key, address)
	a.answerPort(w, r, p, err)
}

// CheckPort looks at a port.
func (a api) CheckPort(w http.ResponseWriter, r *http.Request, port string) {
	key, ok := a.onPort(w, r, port, nil)
	if !ok {
		return
	}
	report, err := a.cfg.Outward.Look(r.Context(), key, a.cfg.UseCases.Providers())
	if err != nil {
		a.failPort(w, r, err)
		return
	}
	out := PortReport{Port: key.String(), ExitAddress: optional(report.ExitAddress), Refuses: apiRefusals(report.Refuses)}
	if report.Err != nil {
		out.Problem = optional(string(report.Err.Code))
	}
	a.json(w, r, http.StatusOK, out)
}
