package server

import (
	"log/slog"
	"testing"
)

// TestMemoryPlaces: what must stay free is nobody's place.
func TestMemoryPlaces(t *testing.T) {
	cfg := Config{Logger: slog.New(slog.DiscardHandler)}
	all := memoryPlaces(cfg)
	if all < 1 {
		t.Fatalf("%d places on a computer that runs tests", all)
	}
	cfg.MinFreeMemory = 1 << 50
	if n := memoryPlaces(cfg); n != 0 {
		t.Errorf("%d places beyond all the memory that there is", n)
	}
}
