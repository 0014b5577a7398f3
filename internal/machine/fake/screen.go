package fake

import (
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/internal/machine"
)

// The picture of a fake machine's screen: 64x48, all blue, a VP8 keyframe.
const (
	screenPicture = "0AMAnQEqQAAwADkDAAAcJAwsLETMJEAJIACdaoD+AIHCODxV835NQP76eV//wZj+DMfwZj/4Mx/909e09e09fyUA"
	screenWidth   = 64
	screenHeight  = 48
)

var errCodec = errors.New("a codec that there is not")

// screen is a screen stream: it sends its picture at first, when a keyframe is
// wanted, and after each input, with the input's number; copied text it sends
// back. A frame that breaks a rule ends it.
func (m *Machine) screen(w http.ResponseWriter, r *http.Request) {
	if m.spec.Kind != machine.Browser || r.Header.Get("Upgrade") != line.Upgrade {
		reply(w, nil, errKind)
		return
	}
	if r.FormValue("codec") != "vp8" {
		http.Error(w, errCodec.Error(), http.StatusBadRequest)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		reply(w, nil, err)
		return
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(upgraded)); err != nil {
		return
	}
	data, err := base64.StdEncoding.DecodeString(screenPicture)
	if err != nil {
		panic(err)
	}
	began := time.Now()
	frame := guestapi.VideoFrame{Keyframe: true, Width: screenWidth, Height: screenHeight, Data: data}
	var buf []byte
	for {
		frame.Time = uint64(time.Since(began).Microseconds()) //nolint:gosec // it grows from 0
		if guestapi.WriteScreenFrame(conn, guestapi.ScreenVideo, guestapi.AppendVideo(nil, frame)) != nil {
			return
		}
		for again := false; !again; {
			kind, payload, err := guestapi.ReadScreenFrame(buffered, buf)
			if err != nil {
				return
			}
			buf = payload
			switch kind {
			case guestapi.ScreenKeyframe:
				again = true
			case guestapi.ScreenBitrate, guestapi.ScreenResize:
			default:
				in, err := guestapi.ParseInput(append([]byte{byte(kind)}, payload...))
				if err != nil {
					return
				}
				if again = in.ID != 0; again {
					frame.Input = in.ID
				}
				if kind == guestapi.ScreenClipboard && guestapi.WriteScreenFrame(conn, kind, payload) != nil {
					return
				}
			}
		}
	}
}
