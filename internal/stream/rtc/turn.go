package rtc

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the TURN REST API has no other, and HMAC does not need collisions to be hard
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// relayTime is how long credentials of a TURN server are good for.
const relayTime = 10 * time.Minute

const minRelaySecret, maxRelaySecret = 16, 1024

// IceServer is what a page is told of a TURN server.
type IceServer struct {
	URLs                 []string
	Username, Credential string
}

// Relay makes credentials for a TURN server that knows the same secret (coturn's
// use-auth-secret): time-limited, of no use for anything but to relay.
type Relay struct {
	urls   []string
	secret []byte
}

// NewRelay reads the secret from a file. Its errors hold no part of it.
func NewRelay(urls []string, secretFile string) (*Relay, error) {
	for _, u := range urls {
		if err := checkTurnURL(u); err != nil {
			return nil, err
		}
	}
	info, err := os.Stat(secretFile)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 2*maxRelaySecret {
		return nil, fmt.Errorf("%s is not a file with a secret", secretFile)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s can be read by every user of this computer: chmod o-rwx it", secretFile)
	}
	b, err := os.ReadFile(secretFile)
	if err != nil {
		return nil, err
	}
	secret := bytes.TrimSpace(b)
	if len(secret) < minRelaySecret || len(secret) > maxRelaySecret {
		return nil, fmt.Errorf("the secret in %s must have %d to %d characters", secretFile, minRelaySecret, maxRelaySecret)
	}
	return &Relay{urls, secret}, nil
}

func checkTurnURL(u string) error {
	parsed, err := url.Parse(u)
	if err != nil || parsed.Scheme != "turn" && parsed.Scheme != "turns" || parsed.Opaque == "" || strings.ContainsAny(parsed.Opaque, "@/ ") {
		return errors.New("an address of a TURN server looks like turn:turn.example.org:3478 or turns:turn.example.org:443?transport=tcp, without a password")
	}
	return nil
}

// Servers are what a page is told now.
func (r *Relay) Servers() []IceServer {
	user, credential := relayCredentials(r.secret, time.Now().Add(relayTime))
	return []IceServer{{URLs: r.urls, Username: user, Credential: credential}}
}

// relayCredentials are a name that holds when it expires, and its HMAC. The name
// says nothing of the user.
func relayCredentials(secret []byte, expires time.Time) (user, credential string) {
	var id [9]byte
	rand.Read(id[:])
	user = strconv.FormatInt(expires.Unix(), 10) + ":" + base64.RawURLEncoding.EncodeToString(id[:])
	return user, relayPassword(secret, user)
}

func relayPassword(secret []byte, user string) string {
	mac := hmac.New(sha1.New, secret)
	mac.Write([]byte(user))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
