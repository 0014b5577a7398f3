//go:build linux

package guest

import (
	"context"
	"errors"
	"testing"

	"github.com/anteroom/anteroom/internal/line"
)

// TestNothingLeavesAStaleBrowser: what a machine's browser has of its snapshot's
// random state gets no connection.
func TestNothingLeavesAStaleBrowser(t *testing.T) {
	var a Agent
	dial := func() error { _, err := a.dialHost(context.Background()); return err }
	if err := dial(); !errors.Is(err, line.ErrClosed) {
		t.Errorf("without a snapshot: %v, want that there is no line", err)
	}
	a.setStale(true, false) // a template
	for range 2 {
		if err := dial(); !errors.Is(err, errStale) {
			t.Errorf("in a template: %v, want errStale", err)
		}
	}
	a.setStale(true, true) // restored from it and somebody's
	if err := dial(); !errors.Is(err, errStale) {
		t.Errorf("the first connection: %v, want errStale", err)
	}
	if err := dial(); !errors.Is(err, line.ErrClosed) {
		t.Errorf("the second: %v, want that there is no line", err)
	}
	a.setStale(true, true)
	if a.renewed() || !a.renewed() {
		t.Error("a browser is renewed twice, or never")
	}
}
