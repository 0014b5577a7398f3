package rtc

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// Limits of what a viewer sends to make a connection.
const (
	MaxOffer      = 64 << 10
	MaxFragment   = 16 << 10
	maxCandidates = 64 // of one offer and its fragments, and again after each restart
	maxLine       = 4 << 10
	maxCodecs     = 128
)

// The bounds of RFC 8839.
const (
	minUfrag, maxUfrag = 4, 256
	minPwd, maxPwd     = 22, 256
)

// offer is a viewer's, found good.
type offer struct {
	desc       *sdp.SessionDescription // without candidates: nothing is sent to them
	codec      string
	candidates int
	ufrag      string
	maxMessage int // bytes of one data channel message that the viewer takes
	mids       []string
}

// parseOffer holds an offer to what the page makes: one video to receive and one
// application section, bundled. ErrOffer with a sentence otherwise.
func parseOffer(text []byte) (*offer, error) {
	if len(text) > MaxOffer {
		return nil, refuse("The offer is longer than %d bytes.", MaxOffer)
	}
	if tooLong(text) {
		return nil, refuse("A line of the offer is too long.")
	}
	var desc sdp.SessionDescription
	if err := desc.Unmarshal(text); err != nil {
		return nil, refuse("The offer is not a session description.")
	}
	o := &offer{desc: &desc, maxMessage: 64 << 10}
	if err := o.sections(); err != nil {
		return nil, err
	}
	o.candidates = dropCandidates(&desc.Attributes)
	for _, m := range desc.MediaDescriptions {
		o.candidates += dropCandidates(&m.Attributes)
	}
	if o.candidates > maxCandidates {
		return nil, refuse("The offer has more than %d candidates.", maxCandidates)
	}
	return o, nil
}

func tooLong(text []byte) bool {
	for line := range bytes.Lines(text) {
		if len(line) > maxLine {
			return true
		}
	}
	return false
}

func (o *offer) sections() error {
	var video, data *sdp.MediaDescription
	for _, m := range o.desc.MediaDescriptions {
		switch {
		case m.MediaName.Media == "video" && video == nil:
			video = m
		case m.MediaName.Media == "application" && data == nil:
			data = m
		default:
			return refuse("The offer must have one section of video and one of data, and no other.")
		}
		mid, ok := m.Attribute(sdp.AttrKeyMID)
		if !ok || mid == "" || len(mid) > 16 {
			return refuse("A section of the offer has no name.")
		}
		o.mids = append(o.mids, mid)
	}
	if video == nil || data == nil {
		return refuse("The offer must have one section of video and one of data, and no other.")
	}
	if err := o.video(video); err != nil {
		return err
	}
	if v, ok := data.Attribute("max-message-size"); ok {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return refuse("The offer's message size is no number.")
		}
		if n > 0 {
			o.maxMessage = int(n)
		}
	}
	return o.transport(video, data)
}

// video holds the section to receiving only: nothing that a viewer sends as
// media is ever read.
func (o *offer) video(m *sdp.MediaDescription) error {
	_, receives := m.Attribute(sdp.AttrKeyRecvOnly)
	for _, other := range []string{sdp.AttrKeySendRecv, sdp.AttrKeySendOnly, sdp.AttrKeyInactive} {
		if _, ok := m.Attribute(other); ok {
			receives = false
		}
	}
	if !receives {
		return refuse("The offer's video must be recvonly.")
	}
	if _, ok := m.Attribute("simulcast"); ok {
		return refuse("The offer's video must be recvonly.")
	}
	if len(m.MediaName.Formats) > maxCodecs {
		return refuse("The offer has too many codecs.")
	}
	if o.codec = pickCodec(m); o.codec == "" {
		return refuse("The offer has neither VP8 nor constrained baseline H.264.")
	}
	return nil
}

// pickCodec takes VP8, which every machine has, before H.264.
func pickCodec(m *sdp.MediaDescription) string {
	h264 := map[string]bool{} // payload types
	found := ""
	for _, a := range m.Attributes {
		if a.Key != "rtpmap" {
			continue
		}
		pt, name, _ := strings.Cut(a.Value, " ")
		switch {
		case strings.EqualFold(name, "VP8/90000"):
			return VP8
		case strings.EqualFold(name, "H264/90000"):
			h264[pt] = true
		}
	}
	for _, a := range m.Attributes {
		pt, params, _ := strings.Cut(a.Value, " ")
		if a.Key != "fmtp" || !h264[pt] {
			continue
		}
		params = strings.ToLower(params)
		if strings.Contains(params, "packetization-mode=1") && strings.Contains(params, "profile-level-id=42e0") {
			found = H264
		}
	}
	return found
}

func (o *offer) transport(sections ...*sdp.MediaDescription) error {
	get := func(m *sdp.MediaDescription, key string) string {
		if v, ok := m.Attribute(key); ok {
			return v
		}
		v, _ := o.desc.Attribute(key)
		return v
	}
	for _, m := range sections {
		ufrag, pwd := get(m, "ice-ufrag"), get(m, "ice-pwd")
		if !credentials(ufrag, pwd) {
			return refuse("The offer has no ICE name and password.")
		}
		if o.ufrag != "" && o.ufrag != ufrag {
			return refuse("The offer's sections must share one transport.")
		}
		o.ufrag = ufrag
		if algorithm, _, _ := strings.Cut(get(m, "fingerprint"), " "); !strings.EqualFold(algorithm, "sha-256") &&
			!strings.EqualFold(algorithm, "sha-384") && !strings.EqualFold(algorithm, "sha-512") {
			return refuse("The offer has no fingerprint of a strong hash.")
		}
		if setup := get(m, "setup"); setup != "actpass" && setup != "passive" {
			return refuse("The offer must let this side begin (setup:actpass).")
		}
	}
	group, _ := o.desc.Attribute(sdp.AttrKeyGroup)
	if words := strings.Fields(group); len(words) != 1+len(o.mids) || words[0] != "BUNDLE" || !sameNames(words[1:], o.mids) {
		return refuse("The offer's sections must be bundled.")
	}
	return nil
}

func sameNames(a, b []string) bool {
	for _, x := range a {
		found := false
		for _, y := range b {
			found = found || x == y
		}
		if !found {
			return false
		}
	}
	return len(a) == 2 && a[0] != a[1]
}

func credentials(ufrag, pwd string) bool {
	return len(ufrag) >= minUfrag && len(ufrag) <= maxUfrag && iceChars(ufrag) &&
		len(pwd) >= minPwd && len(pwd) <= maxPwd && iceChars(pwd)
}

func iceChars(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '+' && c != '/' && c != '-' && c != '_' && c != '='
	}) < 0
}

// dropCandidates takes candidates out and counts them.
func dropCandidates(attrs *[]sdp.Attribute) int {
	n, kept := 0, (*attrs)[:0]
	for _, a := range *attrs {
		switch a.Key {
		case sdp.AttrKeyCandidate, "remote-candidates":
			n++
		case sdp.AttrKeyEndOfCandidates:
		default:
			kept = append(kept, a)
		}
	}
	*attrs = kept
	return n
}

// fragment is a viewer's PATCH.
type fragment struct {
	ufrag, pwd string
	candidates int
}

// parseFragment reads application/trickle-ice-sdpfrag (RFC 8840).
func parseFragment(text []byte) (fragment, error) {
	var f fragment
	if len(text) > MaxFragment {
		return f, refuse("The fragment is longer than %d bytes.", MaxFragment)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		key, value, _ := strings.Cut(line, ":")
		switch {
		case line == "":
		case len(line) > maxLine:
			return f, refuse("A line of the fragment is too long.")
		case key == "a=ice-ufrag":
			if f.ufrag != "" && f.ufrag != value {
				return f, refuse("The fragment has two ICE names.")
			}
			f.ufrag = value
		case key == "a=ice-pwd":
			if f.pwd != "" && f.pwd != value {
				return f, refuse("The fragment has two ICE passwords.")
			}
			f.pwd = value
		case key == "a=candidate":
			if len(strings.Fields(value)) < 8 {
				return f, refuse("The fragment has a candidate that is none.")
			}
			f.candidates++
		case strings.HasPrefix(line, "a="), strings.HasPrefix(line, "m="):
		default:
			return f, refuse("The fragment has a line that is none of its kind.")
		}
	}
	if f.candidates > maxCandidates {
		return f, refuse("The fragment has more than %d candidates.", maxCandidates)
	}
	if (f.ufrag != "" || f.pwd != "") && !credentials(f.ufrag, f.pwd) {
		return f, refuse("The fragment's ICE name or password is not one.")
	}
	return f, nil
}

// restarted is the remote description with other credentials: how the library is
// told of an ICE restart.
func restarted(remote string, f fragment) (string, error) {
	var desc sdp.SessionDescription
	if err := desc.UnmarshalString(remote); err != nil {
		return "", err
	}
	desc.Origin.SessionVersion++
	set := func(attrs []sdp.Attribute) {
		for i := range attrs {
			switch attrs[i].Key {
			case "ice-ufrag":
				attrs[i].Value = f.ufrag
			case "ice-pwd":
				attrs[i].Value = f.pwd
			}
		}
	}
	set(desc.Attributes)
	for _, m := range desc.MediaDescriptions {
		set(m.Attributes)
	}
	b, err := desc.Marshal()
	return string(b), err
}

// candidates are the gateway's own: what viewers are told of the shared sockets.
func candidates(public []netip.AddrPort) []string {
	var out []string
	for i, a := range public {
		// Type host; UDP before TCP, the first before the second (RFC 8445, 5.1.2).
		udp := 126<<24 | (65535-i)<<8 | 255
		tcp := 90<<24 | (4<<13|(8191-i))<<8 | 255
		out = append(out,
			fmt.Sprintf("%d 1 udp %d %s %d typ host", 2*i+1, udp, a.Addr(), a.Port()),
			fmt.Sprintf("%d 1 tcp %d %s %d typ host tcptype passive", 2*i+2, tcp, a.Addr(), a.Port()))
	}
	return out
}

// answerFor puts the gateway's candidates in the place of the library's.
func answerFor(local *webrtc.SessionDescription, own []string) ([]byte, error) {
	var desc sdp.SessionDescription
	if err := desc.UnmarshalString(local.SDP); err != nil {
		return nil, err
	}
	dropCandidates(&desc.Attributes)
	for i, m := range desc.MediaDescriptions {
		dropCandidates(&m.Attributes)
		if i > 0 {
			continue // they are bundled with the first
		}
		for _, c := range own {
			m.Attributes = append(m.Attributes, sdp.NewAttribute(sdp.AttrKeyCandidate, c))
		}
		m.Attributes = append(m.Attributes, sdp.NewPropertyAttribute(sdp.AttrKeyEndOfCandidates))
	}
	return desc.Marshal()
}

// fragmentFor is the answer to an ICE restart.
func fragmentFor(local *webrtc.SessionDescription, own []string) ([]byte, error) {
	var desc sdp.SessionDescription
	if err := desc.UnmarshalString(local.SDP); err != nil {
		return nil, err
	}
	if len(desc.MediaDescriptions) == 0 {
		return nil, fmt.Errorf("%w: no sections", ErrOffer)
	}
	m := desc.MediaDescriptions[0]
	get := func(key string) string {
		if v, ok := m.Attribute(key); ok {
			return v
		}
		v, _ := desc.Attribute(key)
		return v
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("a=ice-lite")
	line("a=ice-ufrag:%s", get("ice-ufrag"))
	line("a=ice-pwd:%s", get("ice-pwd"))
	line("m=%s %s %s %s", m.MediaName.Media, "9", strings.Join(m.MediaName.Protos, "/"), strings.Join(m.MediaName.Formats, " "))
	line("a=mid:%s", get(sdp.AttrKeyMID))
	for _, c := range own {
		line("a=candidate:%s", c)
	}
	line("a=end-of-candidates")
	return []byte(b.String()), nil
}
