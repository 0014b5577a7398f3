// Package vp8 encodes pictures of a screen as VP8, with Debian's static libvpx
// and libyuv. It needs cgo; without it the package is empty.
package vp8

import "errors"

// MaxQuantizer is the coarsest of the quantizers, which go from 0 (finest).
const MaxQuantizer = 63

// MacroBlock is the side of the blocks that a picture is coded in, in pixels.
const MacroBlock = 16

// Config is what an Encoder starts with.
type Config struct {
	// Width and Height are the screen's, at least 16 and at most 16383. The
	// picture has even ones: the last column or row is there twice where it
	// has to be.
	Width, Height int
	// Speed trades quality for time: 0 to 16, see ARCHITECTURE.md for what was
	// measured.
	Speed int
	// StaticThreshold is the difference below which a block counts as
	// unchanged.
	StaticThreshold int
	// Bitrate is the first target in bits per second.
	Bitrate int
}

// Params are the choices for one picture.
type Params struct {
	Keyframe bool
	// Active says for each macroblock, row by row, whether it may have changed
	// (not 0); the others are taken from the picture before as they are. nil
	// means all of them. It does not count in a keyframe.
	Active []byte
	// MaxQuantizer is the coarsest quantizer that may be used.
	MaxQuantizer int
	Bitrate      int // bits per second
	// Duration is the time since the picture before, in microseconds, more
	// than 0: what the rate control is to believe.
	Duration int64
}

// ErrEncoder says that libvpx has refused something.
var ErrEncoder = errors.New("vp8: the encoder has failed")
