//go:build linux && cgo

package screen

import (
	"fmt"
	"image"

	"github.com/jezek/xgb/damage"
	"github.com/jezek/xgb/shm"
	"github.com/jezek/xgb/xfixes"
	"github.com/jezek/xgb/xproto"
	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/guest/rfb"
)

const (
	bytesPerPixel = 4
	segmentBytes  = rfb.MaxWidth * rfb.MaxHeight * bytesPerPixel // what is not touched takes no memory
	maxRects      = 8                                            // that are asked for one by one
)

// capture takes pixels of the screen through memory that is shared with the X
// server. It is for one goroutine; the owner closes it.
type capture struct {
	x       *server
	memory  []byte
	segment shm.Seg
	damage  damage.Damage
	region  xfixes.Region
	size    image.Point
}

func newCapture(x *server) (*capture, error) {
	c := &capture{x: x}
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, segmentBytes, unix.IPC_CREAT|0o600)
	if err != nil {
		return nil, fmt.Errorf("screen: shared memory: %w", err)
	}
	// It goes when the last of the two has let it go.
	defer func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) }()
	if c.memory, err = unix.SysvShmAttach(id, 0, 0); err != nil {
		return nil, fmt.Errorf("screen: shared memory: %w", err)
	}
	if err := c.attach(uint32(id)); err != nil { //nolint:gosec // ids are not negative
		c.close()
		return nil, fmt.Errorf("screen: the X server: %w", err)
	}
	return c, nil
}

func (c *capture) attach(id uint32) error {
	var err error
	if c.segment, err = shm.NewSegId(c.x.conn); err != nil {
		return err
	}
	if err := shm.AttachChecked(c.x.conn, c.segment, id, false).Check(); err != nil {
		return err
	}
	if c.region, err = xfixes.NewRegionId(c.x.conn); err != nil {
		return err
	}
	if err := xfixes.CreateRegionChecked(c.x.conn, c.region, nil).Check(); err != nil {
		return err
	}
	if c.damage, err = damage.NewDamageId(c.x.conn); err != nil {
		return err
	}
	// One event when the region stops being empty, until it is emptied.
	if err := damage.CreateChecked(c.x.conn, c.damage, xproto.Drawable(c.x.root), damage.ReportLevelNonEmpty).Check(); err != nil {
		return err
	}
	return c.measure()
}

func (c *capture) close() { _ = unix.SysvShmDetach(c.memory) }

// measure asks for the screen's size.
func (c *capture) measure() error {
	g, err := xproto.GetGeometry(c.x.conn, xproto.Drawable(c.x.root)).Reply()
	if err != nil {
		return err
	}
	if int(g.Width)*int(g.Height)*bytesPerPixel > segmentBytes {
		return fmt.Errorf("a screen of %dx%d", g.Width, g.Height)
	}
	c.size = image.Pt(int(g.Width), int(g.Height))
	return nil
}

// takeDamage returns what has changed since the last call.
func (c *capture) takeDamage() ([]image.Rectangle, error) {
	damage.Subtract(c.x.conn, c.damage, 0, c.region)
	reply, err := xfixes.FetchRegion(c.x.conn, c.region).Reply()
	if err != nil {
		return nil, err
	}
	rects := make([]image.Rectangle, 0, len(reply.Rectangles))
	for _, r := range reply.Rectangles {
		x, y := int(r.X), int(r.Y)
		rects = append(rects, image.Rect(x, y, x+int(r.Width), y+int(r.Height)))
	}
	return simplify(rects, c.size), nil
}

// simplify returns few rectangles that cover the given ones on a screen, begin
// at even coordinates and end at even ones or at the screen's end, and are
// together not larger than the screen.
func simplify(rects []image.Rectangle, size image.Point) []image.Rectangle {
	screen := image.Rectangle{Max: size}
	var bounds image.Rectangle
	area := 0
	out := rects[:0]
	for _, r := range rects {
		r = image.Rect(r.Min.X&^1, r.Min.Y&^1, (r.Max.X+1)&^1, (r.Max.Y+1)&^1).Intersect(screen)
		if r.Empty() {
			continue
		}
		out = append(out, r)
		bounds = bounds.Union(r)
		area += r.Dx() * r.Dy()
	}
	if len(out) > maxRects || area*3 > bounds.Dx()*bounds.Dy()*2 {
		return append(out[:0], bounds)
	}
	return out
}

// grab hands the pixels of the rectangles, as simplify returns them, to take.
// An error may only mean that the screen has a new size.
func (c *capture) grab(rects []image.Rectangle, take func([]byte, image.Rectangle) error) error {
	cookies := make([]shm.GetImageCookie, len(rects))
	offset := 0
	for i, r := range rects {
		cookies[i] = shm.GetImage(c.x.conn, xproto.Drawable(c.x.root), int16(r.Min.X), int16(r.Min.Y), //nolint:gosec // within the screen
			uint16(r.Dx()), uint16(r.Dy()), ^uint32(0), xproto.ImageFormatZPixmap, c.segment, uint32(offset)) //nolint:gosec // within the segment
		offset += r.Dx() * r.Dy() * bytesPerPixel
	}
	var first error
	offset = 0
	for i, r := range rects {
		_, err := cookies[i].Reply()
		n := r.Dx() * r.Dy() * bytesPerPixel
		if err == nil {
			err = take(c.memory[offset:offset+n], r)
		}
		if err != nil && first == nil {
			first = err
		}
		offset += n
	}
	return first
}
