//go:build linux && cgo

package screen

import (
	"context"
	"io"
	"sync"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// output writes frames to the viewer, from one goroutine. Of each type at most
// one waits: a newer one takes its place, but for video, where the next picture
// is not even taken before the last one is written (videoDone).
type output struct {
	w         io.Writer
	wake      chan struct{} // has one while there may be something to write
	videoDone chan struct{} // has one while no video is waiting or being written

	mu      sync.Mutex // guards all below
	waiting map[guestapi.ScreenFrameType][]byte
}

func newOutput(w io.Writer) *output {
	o := &output{
		w: w, wake: make(chan struct{}, 1), videoDone: make(chan struct{}, 1),
		waiting: map[guestapi.ScreenFrameType][]byte{},
	}
	o.videoDone <- struct{}{}
	return o
}

// put has payload written soon.
func (o *output) put(kind guestapi.ScreenFrameType, payload []byte) {
	o.mu.Lock()
	o.waiting[kind] = payload
	o.mu.Unlock()
	poke(o.wake)
}

// take returns what is to be written next; what is small goes first.
func (o *output) take() (guestapi.ScreenFrameType, []byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, kind := range [...]guestapi.ScreenFrameType{guestapi.ScreenCursor, guestapi.ScreenVideo, guestapi.ScreenClipboard} {
		if payload, ok := o.waiting[kind]; ok {
			delete(o.waiting, kind)
			return kind, payload, true
		}
	}
	return 0, nil, false
}

// run writes until ctx ends or a write fails.
func (o *output) run(ctx context.Context) error {
	for {
		kind, payload, ok := o.take()
		if !ok {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-o.wake:
			}
			continue
		}
		if err := guestapi.WriteScreenFrame(o.w, kind, payload); err != nil {
			return err
		}
		if kind == guestapi.ScreenVideo {
			poke(o.videoDone)
		}
	}
}

// poke puts one into a channel of one, unless it is there.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
