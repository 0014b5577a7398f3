// Package screen shows an X server's screen to one viewer: it encodes what
// changes on it, and gives the viewer's input to it. It runs inside of a
// machine, as a program of its own for each viewer (cmd/anteroom-screen), and
// speaks the frames of guestapi's screen stream. It needs cgo, for the encoder;
// without it the package is empty.
package screen
