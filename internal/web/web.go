// Package web is the page: what ui/ builds, embedded, and how it is served.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

// dist is what the page's build writes; without a build it holds a marker only.
//
//go:embed all:dist
var dist embed.FS

// Built returns the embedded page.
func Built() fs.FS {
	sub, err := fs.Sub(dist, "dist")
	if err != nil { // the directory is embedded above
		panic(err)
	}
	return sub
}

const (
	// index is the page itself, answered for every address of the page's own.
	index = "index.html"
	// assets is where the build puts files whose names hold their hash.
	assets       = "assets/"
	writeTimeout = time.Minute
	minGzip      = 1024
)

// file is one file of the page, ready to be sent.
type file struct {
	contentType string
	plain       []byte
	gzipped     []byte // nil if it would not be smaller
	etag        string
	immutable   bool
}

// Page serves the page. Every file is read once, so a request reaches memory
// only. Safe for concurrent use.
type Page struct {
	files map[string]*file
}

// New reads the page. A page that has not been built is no error: visitors are
// told how to build it.
func New(built fs.FS) (*Page, error) {
	p := &Page{files: make(map[string]*file)}
	err := fs.WalkDir(built, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(path.Base(name), ".") {
			return err
		}
		b, err := fs.ReadFile(built, name)
		if err != nil {
			return err
		}
		p.files[name], err = newFile(name, b)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("web: %w", err)
	}
	return p, nil
}

func newFile(name string, b []byte) (*file, error) {
	sum := sha256.Sum256(b)
	f := &file{
		contentType: contentType(name),
		plain:       b,
		etag:        `W/"` + hex.EncodeToString(sum[:16]) + `"`, // weak: the same for both encodings
		immutable:   strings.HasPrefix(name, assets),
	}
	if len(b) < minGzip {
		return f, nil
	}
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if z.Len() < len(b)*9/10 {
		f.gzipped = z.Bytes()
	}
	return f, nil
}

// contentType does not ask the operating system, whose tables differ.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".json", ".map":
		return "application/json"
	case ".webmanifest":
		return "application/manifest+json"
	case ".svg":
		return "image/svg+xml"
	case ".png":
		return "image/png"
	case ".ico":
		return "image/x-icon"
	case ".woff2":
		return "font/woff2"
	case ".wasm":
		return "application/wasm"
	case ".txt", ".md":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

const notBuilt = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Anteroom</title>
<h1>The page has not been built</h1>
<p>This program was built without its page. Run <code>make build</code> and start it again. The API works all the same.</p>
</html>
`

// ServeHTTP answers GET and HEAD: a file of the page, or for an address that
// names no file the page itself, whose script reads the address.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	f, ok := p.files[name]
	if !ok && path.Ext(name) == "" && !strings.HasPrefix(name, assets) {
		if f, ok = p.files[index]; !ok {
			send(w, r, http.StatusServiceUnavailable, "text/html; charset=utf-8", []byte(notBuilt))
			return
		}
	}
	h := w.Header()
	if !ok {
		h.Set("Cache-Control", "no-store")
		send(w, r, http.StatusNotFound, "text/plain; charset=utf-8", []byte("There is no such file.\n"))
		return
	}
	h.Set("Cache-Control", "no-cache")
	if f.immutable {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("Vary", "Accept-Encoding")
	h.Set("ETag", f.etag)
	if match := r.Header.Get("If-None-Match"); match != "" && strings.Contains(match, f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := f.plain
	if f.gzipped != nil && acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = f.gzipped
	}
	send(w, r, http.StatusOK, f.contentType, body)
}

func send(w http.ResponseWriter, r *http.Request, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a visitor who left needs no answer
	}
}

// acceptsGzip says whether the browser takes gzip. A weight below 1, which
// no browser gives it, may be read as no.
func acceptsGzip(r *http.Request) bool {
	for _, v := range r.Header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(v, ",") {
			name, params, _ := strings.Cut(strings.ToLower(strings.TrimSpace(part)), ";")
			if strings.TrimSpace(name) == "gzip" && !strings.HasPrefix(strings.ReplaceAll(params, " ", ""), "q=0") {
				return true
			}
		}
	}
	return false
}
