package httpapi

import (
	"slices"
	"time"

	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

func apiSession(s session.Session) Session {
	return Session{
		ID:            string(s.ID),
		Provider:      s.Provider,
		State:         SessionState(s.State),
		Reason:        optional(Reason(s.Reason)),
		Message:       standing(s),
		QueuePosition: optionalNumber(s.Position),
		Detail:        optional(s.Detail),
		Attempt:       s.Attempt,
		VMID:          optional(s.VMID),
		ViewerURL:     s.ViewerURL,
		ExitAddress:   optional(s.ExitAddress),
		CredentialID:  optional(s.CredentialID),
		LastHeartbeat: optionalTime(s.LastHeartbeat),
		Deadline:      s.Deadline.UTC(),
		CreatedAt:     s.CreatedAt.UTC(),
		UpdatedAt:     s.UpdatedAt.UTC(),
	}
}

// standing is one sentence about where a session stands.
func standing(s session.Session) string {
	if s.Position > 0 {
		return session.QueueSentence(s.Position - 1)
	}
	return message(s.State, s.Reason)
}

// message is one sentence about a state.
func message(state session.State, reason session.Reason) string {
	switch state {
	case session.Requested:
		return "The sign-in is about to start."
	case session.Starting:
		return "A browser machine is being started."
	case session.Waiting:
		return "Waiting for you to sign in."
	case session.Capturing:
		return "You are signed in; the tool's credential files are being taken."
	case session.Storing:
		return "The credentials are being encrypted and stored."
	case session.Delivering:
		return "The credentials are on their way to your own machine."
	case session.Completed:
		return "Done: your own machine is signed in."
	case session.Cancelled:
		return session.ReasonCancelled.Sentence()
	case session.Expired:
		return session.ReasonExpired.Sentence()
	}
	return reason.Sentence()
}

func apiEvent(e session.Event) Event {
	out := Event{
		Seq:       e.Seq,
		SessionID: optional(string(e.SessionID)),
		Kind:      EventKind(e.Kind),
		State:     optional(SessionState(e.State)),
		Reason:    optional(Reason(e.Reason)),
		Message:   e.Message,
		At:        e.At.UTC(),
	}
	if out.Message == "" && e.Kind == session.EventState {
		out.Message = message(e.State, e.Reason)
	}
	return out
}

func apiProvider(f *provider.File) Provider {
	return Provider{
		Name:           f.Name,
		Aliases:        orEmpty(f.Aliases),
		Title:          f.Title,
		Vendor:         f.Vendor,
		Terms:          f.Terms,
		Version:        f.Version,
		Flow:           ProviderFlow(f.Login.Flow),
		TimeoutSeconds: int(f.Login.TimeLimit() / time.Second),
		Rotates:        f.Refresh.Rotates,
		Revokes:        orEmpty(f.Refresh.Revokes),
	}
}

// apiCredential takes over the metadata; the sealed parts stay behind.
func apiCredential(c store.Credential) Credential {
	return Credential{
		ID:          c.ID,
		Provider:    c.Provider,
		Version:     c.Version,
		Active:      c.Active,
		SessionID:   optional(string(c.SessionID)),
		Account:     optional(c.Account),
		ExpiresAt:   optionalTime(c.ExpiresAt),
		CreatedAt:   c.CreatedAt.UTC(),
		DeliveredAt: optionalTime(c.DeliveredAt),
		DeliveredTo: optional(c.DeliveredTo),
	}
}

func apiMachine(vm store.VM) Machine {
	return Machine{
		ID:          vm.ID,
		Kind:        MachineKind(vm.Kind),
		State:       MachineState(vm.State),
		Driver:      vm.Driver,
		Restored:    vm.Restored,
		SessionID:   optional(string(vm.SessionID)),
		CreatedAt:   vm.CreatedAt.UTC(),
		ReadyAt:     optionalTime(vm.ReadyAt),
		DestroyedAt: optionalTime(vm.DestroyedAt),
	}
}

// convert returns a list that is never null in JSON.
func convert[From, To any](in []From, f func(From) To) []To {
	out := make([]To, 0, len(in))
	for _, v := range in {
		out = append(out, f(v))
	}
	return out
}

func orEmpty(in []string) []string { return slices.Concat([]string{}, in) }

func optional[T ~string](v T) *T {
	if v == "" {
		return nil
	}
	return &v
}

// value is what optional was made of.
func value[T ~string](v *T) T {
	if v == nil {
		return ""
	}
	return *v
}

func optionalNumber(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
