package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	cfg, err := parse(nil, io.Discard)
	if err != nil || cfg.out != "demo-out" || len(cfg.tools) != 3 || cfg.keep {
		t.Errorf("without arguments: %+v, %v", cfg, err)
	}
	cfg, err = parse([]string{"--provider", "gemini, claude", "--out", "x", "--keep"}, io.Discard)
	if err != nil || cfg.out != "x" || len(cfg.tools) != 2 || cfg.tools[0].provider != "gemini" || !cfg.keep {
		t.Errorf("with arguments: %+v, %v", cfg, err)
	}
	for _, args := range [][]string{{"--provider", "other"}, {"--provider", ""}, {"--nonsense"}, {"word"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	err := printTable(&out, []result{
		{tool: tools[0], started: 120 * time.Millisecond, viewer: time.Second, signInPage: 2 * time.Second, signedIn: 3 * time.Second,
			stored: 4 * time.Second, delivered: 5 * time.Second, total: 6 * time.Second},
		{tool: tools[1], total: time.Second, err: errors.New("x"), failedAt: "Connect"},
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{
		"PROVIDER STARTED VIEWER SIGN-IN PAGE SIGNED IN STORED DELIVERED TOTAL RESULT",
		"claude 0.12 s 1.00 s 2.00 s 3.00 s 4.00 s 5.00 s 6.00 s ok",
		"codex - - - - - - 1.00 s FAILED: Connect",
	}
	for i, row := range rows {
		if got := strings.Join(strings.Fields(row), " "); i >= len(want) || got != want[i] {
			t.Errorf("row %d is %q", i, got)
		}
	}
}
