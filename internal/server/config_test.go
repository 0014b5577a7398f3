package server

import (
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string // in the error; empty: none
	}{
		{"defaults", func(*Config) {}, ""},
		{"IPv6 loopback", func(c *Config) { c.Listen = "[::1]:8080" }, ""},
		{"localhost", func(c *Config) { c.Listen = "localhost:8080" }, ""},
		{"no port", func(c *Config) { c.Listen = "127.0.0.1" }, "must be host:port"},
		{"elsewhere", func(c *Config) { c.Listen = "0.0.0.0:8080" }, "needs HTTPS"},
		{"everywhere", func(c *Config) { c.Listen = ":8080" }, "needs HTTPS"},
		{"a name", func(c *Config) { c.Listen = "anteroom.example:8080" }, "needs HTTPS"},
		{"elsewhere behind a proxy", func(c *Config) { c.Listen, c.BehindProxy = ":8080", true }, ""},
		{"elsewhere with a certificate", func(c *Config) { c.Listen, c.TLSCert, c.TLSKey = ":443", "c", "k" }, ""},
		{"elsewhere with ACME", func(c *Config) { c.Listen, c.ACMEDomain = ":443", "anteroom.example" }, ""},
		{"certificate without key", func(c *Config) { c.TLSCert = "c" }, "belong together"},
		{"two certificates", func(c *Config) { c.TLSCert, c.TLSKey, c.ACMEDomain = "c", "k", "a.example" }, "exclude each other"},
		{"no state", func(c *Config) { c.StateDir = "" }, "state"},
		{"no time", func(c *Config) { c.SessionTime = time.Second }, "between 1m and 24h"},
		{"too long", func(c *Config) { c.SessionTime = 25 * time.Hour }, "between 1m and 24h"},
		{"too little memory", func(c *Config) { c.MachineMemory = 1 << 20 }, "at least 512 MiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Defaults()
			tt.change(&c)
			err := c.Check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestBaseURL(t *testing.T) {
	for want, c := range map[string]Config{
		"http://127.0.0.1:8080":    {},
		"https://127.0.0.1:8080":   {TLSCert: "c", TLSKey: "k"},
		"https://anteroom.example": {ACMEDomain: "anteroom.example", Hosts: []string{"b.example"}},
		"https://b.example":        {BehindProxy: true, Hosts: []string{"b.example"}},
	} {
		if got := c.BaseURL("127.0.0.1:8080"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
