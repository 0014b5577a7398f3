package rtc

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5/packetio"
	"github.com/pion/webrtc/v4"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// Header extensions.
const (
	twccURI    = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
	playoutURI = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
)

// ICE's times. A viewer's browser checks every few seconds while nothing else
// comes of it.
const (
	iceDisconnected = 5 * time.Second
	iceFailed       = 10 * time.Second
	iceKeepalive    = 2 * time.Second
)

// The transports, as labels.
const (
	transportUDP = "udp"
	transportTCP = "tcp"
)

const (
	nackPackets    = 1024
	maxReceive     = 1 << 20   // bytes of data channels that wait to be read
	maxMediaUnread = 4 << 10   // of media, which nobody reads
	maxRTCPUnread  = 256 << 10 // of reports
)

// newPeer makes a peer connection for one viewer, with the codec that was agreed
// on and nothing else.
func (g *Gateway) newPeer(codec string, rate *rate, check func(transport string)) (*webrtc.PeerConnection, error) {
	media := &webrtc.MediaEngine{}
	if err := registerCodec(media, codec); err != nil {
		return nil, err
	}
	for _, uri := range []string{twccURI, playoutURI} {
		if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverDirectionSendonly); err != nil {
			return nil, err
		}
	}
	var chain interceptor.Registry
	chain.Add(rate) // the nearest to the network: it sees what is sent again too
	responder, err := nack.NewResponderInterceptor(nack.ResponderSize(nackPackets), nack.WithResponderLoggerFactory(silent()))
	if err != nil {
		return nil, err
	}
	chain.Add(responder)
	reports, err := report.NewSenderInterceptor(report.WithSenderLoggerFactory(silent()))
	if err != nil {
		return nil, err
	}
	chain.Add(reports)
	api := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(&chain), webrtc.WithSettingEngine(g.settings(check)))
	return api.NewPeerConnection(webrtc.Configuration{BundlePolicy: webrtc.BundlePolicyMaxBundle})
}

func (g *Gateway) settings(check func(transport string)) webrtc.SettingEngine {
	s := webrtc.SettingEngine{LoggerFactory: silent(), BufferFactory: unreadBuffer}
	s.SetLite(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6})
	s.SetICEUDPMux(g.sockets.udp)
	s.SetICETCPMux(g.sockets.tcp)
	s.DisableActiveTCP(true)
	s.SetIncludeLoopbackCandidate(true) // whether one may listen there is the operator's to say
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetICETimeouts(iceDisconnected, iceFailed, iceKeepalive)
	s.SetDTLSInsecureSkipHelloVerify(true) // ICE has verified the address
	s.SetICEBindingRequestHandler(func(_ *stun.Message, local, _ ice.Candidate, _ *ice.CandidatePair) bool {
		transport := transportUDP
		if local.NetworkType().IsTCP() {
			transport = transportTCP
		}
		check(transport)
		return false // whether a pair is taken is the viewer's to say
	})
	s.DetachDataChannels()
	s.SetSCTPMaxReceiveBufferSize(maxReceive)
	s.SetSCTPMaxMessageSize(guestapi.MaxScreenMessage)
	return s
}

// unread is a buffer of what a viewer sends as media or reports, bounded.
type unread struct{ *packetio.Buffer }

func unreadBuffer(kind packetio.BufferPacketType, _ uint32) io.ReadWriteCloser {
	b := packetio.NewBuffer()
	b.SetLimitSize(maxMediaUnread)
	if kind == packetio.RTCPBufferPacket {
		b.SetLimitSize(maxRTCPUnread)
	}
	return unread{b}
}

// Read implements io.Reader.
func (u unread) Read(p []byte) (int, error) {
	n, _, err := u.Buffer.Read(p, nil)
	return n, err
}

// Write implements io.Writer.
func (u unread) Write(p []byte) (int, error) { return u.Buffer.Write(p, nil) }

func registerCodec(media *webrtc.MediaEngine, codec string) error {
	c := webrtc.RTPCodecParameters{RTPCodecCapability: capability(codec), PayloadType: 96}
	c.RTCPFeedback = []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}, {Type: "ccm", Parameter: "fir"}, {Type: "transport-cc"}}
	if err := media.RegisterCodec(c, webrtc.RTPCodecTypeVideo); err != nil {
		return err
	}
	return media.RegisterCodec(webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeRTX, ClockRate: clockRate, SDPFmtpLine: "apt=96"},
		PayloadType:        97,
	}, webrtc.RTPCodecTypeVideo)
}

func capability(codec string) webrtc.RTPCodecCapability {
	if codec == H264 {
		return webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: clockRate, SDPFmtpLine: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}
	}
	return webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: clockRate}
}

// negotiate answers an offer, or another one of the same connection, and returns
// the local description once it is complete.
func negotiate(ctx context.Context, pc *webrtc.PeerConnection, sdp string) (*webrtc.SessionDescription, error) {
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: sdp}); err != nil {
		return nil, refuse("The offer cannot be answered.")
	}
	answer, err := pc.CreateAnswer(nil)
	if err != nil {
		return nil, refuse("The offer cannot be answered.")
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(answer); err != nil {
		return nil, fmt.Errorf("rtc: answer: %w", err)
	}
	select {
	case <-gathered:
		return pc.LocalDescription(), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
