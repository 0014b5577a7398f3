//go:build cgo

package vp8test

/*
#cgo LDFLAGS: -lvpx -lyuv -lm -lpthread
#include <stdlib.h>
#include <vpx/vpx_decoder.h>
#include <vpx/vp8dx.h>
#include <libyuv/convert_argb.h>

static int decode(vpx_codec_ctx_t *c, const uint8_t *data, unsigned size) {
	if (vpx_codec_decode(c, data, size, NULL, 0))
		return -1;
	return 0;
}

static vpx_image_t *frame(vpx_codec_ctx_t *c) {
	vpx_codec_iter_t it = NULL;
	return vpx_codec_get_frame(c, &it);
}

static int init(vpx_codec_ctx_t *c) { return vpx_codec_dec_init(c, vpx_codec_vp8_dx(), NULL, 0); }

static int to_rgba(vpx_image_t *i, uint8_t *out) {
	return I420ToABGR(i->planes[0], i->stride[0], i->planes[1], i->stride[1], i->planes[2], i->stride[2], out, 4 * i->d_w, i->d_w, i->d_h);
}
*/
import "C"

import (
	"errors"
	"image"
	"unsafe"
)

// Decoder decodes one stream. It is not for concurrent use; the owner closes it.
type Decoder struct{ c *C.vpx_codec_ctx_t }

// New returns a decoder.
func New() (*Decoder, error) {
	c := (*C.vpx_codec_ctx_t)(C.calloc(1, C.sizeof_vpx_codec_ctx_t))
	if C.init(c) != 0 {
		C.free(unsafe.Pointer(c))
		return nil, errors.New("vp8test: no decoder")
	}
	return &Decoder{c: c}, nil
}

// Close frees the decoder.
func (d *Decoder) Close() {
	C.vpx_codec_destroy(d.c)
	C.free(unsafe.Pointer(d.c))
}

// Decode returns the picture after one more frame.
func (d *Decoder) Decode(data []byte) (*image.RGBA, error) {
	if len(data) == 0 {
		return nil, errors.New("vp8test: no data")
	}
	if C.decode(d.c, (*C.uint8_t)(unsafe.Pointer(&data[0])), C.uint(len(data))) != 0 {
		return nil, errors.New("vp8test: " + C.GoString(C.vpx_codec_error(d.c)))
	}
	frame := C.frame(d.c)
	if frame == nil {
		return nil, errors.New("vp8test: no picture")
	}
	out := image.NewRGBA(image.Rect(0, 0, int(frame.d_w), int(frame.d_h)))
	if C.to_rgba(frame, (*C.uint8_t)(unsafe.Pointer(&out.Pix[0]))) != 0 {
		return nil, errors.New("vp8test: no colours")
	}
	return out, nil
}
