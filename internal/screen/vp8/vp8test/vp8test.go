// Package vp8test decodes VP8 with libvpx, for tests. It needs cgo; without it
// the package is empty.
package vp8test
