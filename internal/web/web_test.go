package web

import (
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func get(t *testing.T, h http.Handler, method, path string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var long = strings.Repeat("a long script; ", 1000)

func built() fstest.MapFS {
	return fstest.MapFS{
		"index.html":          {Data: []byte("<!doctype html>")},
		"favicon.svg":         {Data: []byte("<svg/>")},
		"assets/app-1a2b.js":  {Data: []byte(long)},
		"assets/app-1a2b.css": {Data: []byte("a{}")},
		".gitkeep":            {},
		"assets/odd.bin":      {Data: []byte{0, 1, 2}},
	}
}

func TestPage(t *testing.T) {
	p, err := New(built())
	if err != nil {
		t.Fatal(err)
	}
	const once, always = "public, max-age=31536000, immutable", "no-cache"
	for _, tt := range []struct {
		path        string
		status      int
		contentType string
		cache       string
	}{
		{"/", 200, "text/html; charset=utf-8", always},
		{"/index.html", 200, "text/html; charset=utf-8", always},
		{"/sessions/abc", 200, "text/html; charset=utf-8", always},
		{"/favicon.svg", 200, "image/svg+xml", always},
		{"/assets/app-1a2b.js", 200, "text/javascript; charset=utf-8", once},
		{"/assets/app-1a2b.css", 200, "text/css; charset=utf-8", once},
		{"/assets/odd.bin", 200, "application/octet-stream", once},
		{"/assets/gone-1a2b.js", 404, "text/plain; charset=utf-8", "no-store"},
		{"/assets/", 404, "text/plain; charset=utf-8", "no-store"},
		{"/missing.png", 404, "text/plain; charset=utf-8", "no-store"},
		{"/.gitkeep", 404, "text/plain; charset=utf-8", "no-store"},
		{"/../web.go", 404, "text/plain; charset=utf-8", "no-store"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			for _, method := range []string{"GET", "HEAD"} {
				res := get(t, p, method, "http://localhost"+tt.path)
				if res.StatusCode != tt.status || res.Header.Get("Content-Type") != tt.contentType || res.Header.Get("Cache-Control") != tt.cache {
					t.Errorf("%s: %d %v", method, res.StatusCode, res.Header)
				}
				if b := body(t, res.Body); (b == "") != (method == "HEAD") {
					t.Errorf("%s: body %q", method, b)
				}
			}
		})
	}
}

func TestGzipAndETag(t *testing.T) {
	p, err := New(built())
	if err != nil {
		t.Fatal(err)
	}
	const path = "http://localhost/assets/app-1a2b.js"
	plain := get(t, p, "GET", path)
	if plain.Header.Get("Content-Encoding") != "" || body(t, plain.Body) != long {
		t.Error("without Accept-Encoding it is not the plain file")
	}
	zipped := get(t, p, "GET", path, "Accept-Encoding", "br, gzip")
	if zipped.Header.Get("Content-Encoding") != "gzip" || zipped.Header.Get("Vary") != "Accept-Encoding" {
		t.Fatalf("headers %v", zipped.Header)
	}
	zr, err := gzip.NewReader(zipped.Body)
	if err != nil {
		t.Fatal(err)
	}
	if body(t, zr) != long {
		t.Error("unzipped it is another file")
	}
	for _, no := range []string{"identity", "gzip;q=0", "x-gzip", "br"} {
		if res := get(t, p, "GET", path, "Accept-Encoding", no); res.Header.Get("Content-Encoding") != "" {
			t.Errorf("%q was answered with gzip", no)
		}
	}
	if res := get(t, p, "GET", path, "If-None-Match", zipped.Header.Get("ETag")); res.StatusCode != http.StatusNotModified {
		t.Errorf("the same ETag: %d", res.StatusCode)
	}
	if res := get(t, p, "GET", path, "If-None-Match", `W/"other"`); res.StatusCode != http.StatusOK {
		t.Errorf("another ETag: %d", res.StatusCode)
	}
}

func TestNotBuilt(t *testing.T) {
	for name, built := range map[string]fs.FS{"a marker only": fstest.MapFS{".gitkeep": {}}, "nothing": fstest.MapFS{}} {
		p, err := New(built)
		if err != nil {
			t.Fatal(err)
		}
		res := get(t, p, "GET", "http://localhost/")
		if b := body(t, res.Body); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(b, "make build") {
			t.Errorf("%s: %d %q", name, res.StatusCode, b)
		}
	}
}

// The embedded page, built or not, can be served.
func TestEmbedded(t *testing.T) {
	if _, err := New(Built()); err != nil {
		t.Fatal(err)
	}
}
