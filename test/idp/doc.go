// Package idp is the identity provider for tests: a TEST upstream HTTP proxy
// that answers CONNECT for the providers' hosts itself, under a certificate
// authority of its own, and refuses every other host. Behind it are the
// sign-in pages, the token endpoints and so much of each provider's API that
// the real, unmodified command-line tools can sign in and answer one prompt.
//
// Nothing in it leaves the machine: it never dials. It holds no real secret
// and knows no real account; what it issues is worth nothing elsewhere.
//
// A Server records every request and every token that it issued, reports what
// happened as events that a test can wait for, and can be told to be slow, to
// refuse, to answer garbage or to drop connections.
package idp
