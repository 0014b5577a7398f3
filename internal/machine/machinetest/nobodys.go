package machinetest

import (
	"errors"
	"net/http"
	"testing"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/provider"
)

// testNobodys: a machine whose line is up works for nobody before it has been
// configured, and is configured over another line as over the first: a warm pool
// rests on it.
func testNobodys(t *testing.T, s Setup) {
	id, created := create(t, s.Driver, machine.Spec{Kind: machine.Browser})
	early, first := guest(t, s.Driver, id, created.Ref)
	var refused *guestapi.StatusError
	_, err := early.StartAuth(limited(t, s.Driver), guestapi.AuthRequest{SessionID: "early", Provider: &provider.File{Name: "claude"}})
	if !errors.As(err, &refused) || refused.Code != http.StatusConflict {
		t.Errorf("a sign-in before it was configured: %v", err)
	}
	client, _ := guest(t, s.Driver, id, created.Ref)
	<-first.Done()
	if ack := configure(t, s, client, id, machine.Browser); ack.Again {
		t.Error("it says that it has been configured before")
	}
	if ack := configure(t, s, client, id, machine.Browser); !ack.Again {
		t.Error("configured again, it does not say so")
	}
}
