//go:build cgo

package vp8

/*
#cgo CFLAGS: -O2
#cgo LDFLAGS: -lvpx -lyuv -lm -lpthread
#include <stdlib.h>
#include <string.h>
#include <vpx/vpx_encoder.h>
#include <vpx/vp8cx.h>
#include <libyuv/convert.h>

typedef struct {
	vpx_codec_ctx_t codec;
	vpx_codec_enc_cfg_t cfg;
	vpx_image_t img;
	int screen_width, screen_height;
	int64_t pts;
} encoder;

static void encoder_free(encoder *e) {
	vpx_codec_destroy(&e->codec);
	vpx_img_free(&e->img);
	free(e);
}

static encoder *encoder_new(int width, int height, int speed, int static_threshold, int kbit) {
	encoder *e = calloc(1, sizeof *e);
	if (!e)
		return NULL;
	e->screen_width = width;
	e->screen_height = height;
	int w = (width + 1) & ~1, h = (height + 1) & ~1;
	if (!vpx_img_alloc(&e->img, VPX_IMG_FMT_I420, w, h, 32)) {
		free(e);
		return NULL;
	}
	if (vpx_codec_enc_config_default(vpx_codec_vp8_cx(), &e->cfg, 0)) {
		vpx_img_free(&e->img);
		free(e);
		return NULL;
	}
	e->cfg.g_w = w;
	e->cfg.g_h = h;
	e->cfg.g_threads = 1;
	e->cfg.g_timebase.num = 1;
	e->cfg.g_timebase.den = 1000000;
	e->cfg.g_error_resilient = VPX_ERROR_RESILIENT_DEFAULT;
	e->cfg.g_pass = VPX_RC_ONE_PASS;
	e->cfg.g_lag_in_frames = 0;
	e->cfg.kf_mode = VPX_KF_DISABLED;
	e->cfg.rc_end_usage = VPX_CBR;
	e->cfg.rc_dropframe_thresh = 0;
	e->cfg.rc_resize_allowed = 0;
	e->cfg.rc_target_bitrate = kbit;
	e->cfg.rc_min_quantizer = 2;
	e->cfg.rc_max_quantizer = 63;
	e->cfg.rc_undershoot_pct = 100;
	e->cfg.rc_overshoot_pct = 15;
	e->cfg.rc_buf_sz = 1000;
	e->cfg.rc_buf_initial_sz = 500;
	e->cfg.rc_buf_optimal_sz = 600;
	if (vpx_codec_enc_init(&e->codec, vpx_codec_vp8_cx(), &e->cfg, 0)) {
		vpx_img_free(&e->img);
		free(e);
		return NULL;
	}
	// A speed above 0 would be a limit for libvpx, which changes it by the time
	// that pictures take; below 0 it is what is used.
	if (vpx_codec_control(&e->codec, VP8E_SET_CPUUSED, -speed) ||
	    vpx_codec_control(&e->codec, VP8E_SET_STATIC_THRESHOLD, static_threshold) ||
	    vpx_codec_control(&e->codec, VP8E_SET_SCREEN_CONTENT_MODE, 1) ||
	    vpx_codec_control(&e->codec, VP8E_SET_NOISE_SENSITIVITY, 0) ||
	    vpx_codec_control(&e->codec, VP8E_SET_ENABLEAUTOALTREF, 0) ||
	    vpx_codec_control(&e->codec, VP8E_SET_TOKEN_PARTITIONS, VP8_ONE_TOKENPARTITION)) {
		encoder_free(e);
		return NULL;
	}
	return e;
}

// encoder_convert takes pixels of the screen, whose upper left corner is at the
// even x, y, into the picture.
static int encoder_convert(encoder *e, const uint8_t *argb, int stride, int x, int y, int w, int h) {
	int sy = e->img.stride[VPX_PLANE_Y], su = e->img.stride[VPX_PLANE_U], sv = e->img.stride[VPX_PLANE_V];
	uint8_t *py = e->img.planes[VPX_PLANE_Y];
	int err = ARGBToI420(argb, stride, py + y * sy + x, sy,
		e->img.planes[VPX_PLANE_U] + y / 2 * su + x / 2, su,
		e->img.planes[VPX_PLANE_V] + y / 2 * sv + x / 2, sv, w, h);
	if (err)
		return err;
	if ((e->screen_width & 1) && x + w == e->screen_width)
		for (int i = y; i < y + h; i++)
			py[i * sy + e->screen_width] = py[i * sy + e->screen_width - 1];
	if ((e->screen_height & 1) && y + h == e->screen_height)
		memcpy(py + e->screen_height * sy + x, py + (e->screen_height - 1) * sy + x, w + ((x + w) & 1));
	return 0;
}

static int encoder_encode(encoder *e, int keyframe, unsigned char *active, int max_quantizer, int kbit, int64_t duration,
		const void **data, size_t *size, int *is_key, int *quantizer) {
	if (e->cfg.rc_target_bitrate != (unsigned)kbit || e->cfg.rc_max_quantizer != (unsigned)max_quantizer) {
		e->cfg.rc_target_bitrate = kbit;
		e->cfg.rc_max_quantizer = max_quantizer;
		if (vpx_codec_enc_config_set(&e->codec, &e->cfg))
			return -1;
	}
	vpx_active_map_t map = { active, (e->cfg.g_h + 15) / 16, (e->cfg.g_w + 15) / 16 };
	if (vpx_codec_control(&e->codec, VP8E_SET_ACTIVEMAP, &map))
		return -2;
	e->pts += duration;
	if (vpx_codec_encode(&e->codec, &e->img, e->pts, duration, keyframe ? VPX_EFLAG_FORCE_KF : 0, VPX_DL_REALTIME))
		return -3;
	*data = NULL;
	*size = 0;
	vpx_codec_iter_t it = NULL;
	const vpx_codec_cx_pkt_t *p;
	while ((p = vpx_codec_get_cx_data(&e->codec, &it)))
		if (p->kind == VPX_CODEC_CX_FRAME_PKT) {
			*data = p->data.frame.buf;
			*size = p->data.frame.sz;
			*is_key = (p->data.frame.flags & VPX_FRAME_IS_KEY) != 0;
		}
	if (vpx_codec_control(&e->codec, VP8E_GET_LAST_QUANTIZER_64, quantizer))
		return -4;
	return 0;
}
*/
import "C"

import (
	"fmt"
	"image"
	"unsafe"
)

// Encoder makes a VP8 stream of one size. It holds the picture that is encoded,
// of which Convert renews parts. It is not for concurrent use; the owner closes
// it.
type Encoder struct {
	c             *C.encoder
	width, height int // the screen's
}

// NewEncoder returns an encoder whose picture is undefined until all of it has
// been converted.
func NewEncoder(cfg Config) (*Encoder, error) {
	if cfg.Width < MacroBlock || cfg.Height < MacroBlock || cfg.Width > 16383 || cfg.Height > 16383 {
		return nil, fmt.Errorf("%w: a picture of %dx%d", ErrEncoder, cfg.Width, cfg.Height)
	}
	c := C.encoder_new(C.int(cfg.Width), C.int(cfg.Height), C.int(cfg.Speed), C.int(cfg.StaticThreshold), kbit(cfg.Bitrate))
	if c == nil {
		return nil, fmt.Errorf("%w: no encoder for %dx%d", ErrEncoder, cfg.Width, cfg.Height)
	}
	return &Encoder{c: c, width: cfg.Width, height: cfg.Height}, nil
}

// Close frees the encoder, and what Encode has returned.
func (e *Encoder) Close() { C.encoder_free(e.c) }

// Size is the picture's width and height: the screen's, made even.
func (e *Encoder) Size() (width, height int) { return (e.width + 1) &^ 1, (e.height + 1) &^ 1 }

// Blocks is the number of macroblocks in a row, and of rows.
func (e *Encoder) Blocks() (columns, rows int) {
	return (e.width + MacroBlock - 1) / MacroBlock, (e.height + MacroBlock - 1) / MacroBlock
}

// Convert puts the pixels of a part of the screen into the picture: four bytes
// each (blue, green, red, unused), rows without gaps. r begins at even
// coordinates, and ends at even ones or at the screen's end.
func (e *Encoder) Convert(pixels []byte, r image.Rectangle) error {
	even := func(v, end int) bool { return v&1 == 0 || v == end }
	if r.Empty() || !r.In(image.Rect(0, 0, e.width, e.height)) || len(pixels) < 4*r.Dx()*r.Dy() ||
		r.Min.X&1 != 0 || r.Min.Y&1 != 0 || !even(r.Max.X, e.width) || !even(r.Max.Y, e.height) {
		return fmt.Errorf("%w: %d bytes for %v", ErrEncoder, len(pixels), r)
	}
	if C.encoder_convert(e.c, (*C.uint8_t)(unsafe.Pointer(&pixels[0])), C.int(4*r.Dx()), //nolint:gosec // the bounds are checked above
		C.int(r.Min.X), C.int(r.Min.Y), C.int(r.Dx()), C.int(r.Dy())) != 0 {
		return fmt.Errorf("%w: converting %v", ErrEncoder, r)
	}
	return nil
}

// Frame is an encoded picture.
type Frame struct {
	Data      []byte // good until the next call of the encoder
	Keyframe  bool
	Quantizer int
}

// Encode encodes the picture as it is.
func (e *Encoder) Encode(p Params) (Frame, error) {
	columns, rows := e.Blocks()
	var active *C.uchar
	if p.Active != nil && !p.Keyframe {
		if len(p.Active) != columns*rows {
			return Frame{}, fmt.Errorf("%w: a map of %d blocks for %dx%d", ErrEncoder, len(p.Active), columns, rows)
		}
		active = (*C.uchar)(unsafe.Pointer(&p.Active[0]))
	}
	var (
		data       unsafe.Pointer
		size       C.size_t
		isKey, q   C.int
		keyframe   C.int
		quantizer  = min(max(p.MaxQuantizer, 2), MaxQuantizer)
		durationUS = max(p.Duration, 1)
	)
	if p.Keyframe {
		keyframe = 1
	}
	if code := C.encoder_encode(e.c, keyframe, active, C.int(quantizer), kbit(p.Bitrate), C.int64_t(durationUS), &data, &size, &isKey, &q); code != 0 {
		return Frame{}, fmt.Errorf("%w: step %d: %s", ErrEncoder, -int(code), C.GoString(C.vpx_codec_error(&e.c.codec)))
	}
	if size == 0 {
		return Frame{}, fmt.Errorf("%w: no data", ErrEncoder)
	}
	return Frame{Data: unsafe.Slice((*byte)(data), int(size)), Keyframe: isKey != 0, Quantizer: int(q)}, nil
}

func kbit(bits int) C.int { return C.int(max(bits/1000, 1)) }
