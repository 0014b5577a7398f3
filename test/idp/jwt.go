package idp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// jwtSigner signs JSON Web Tokens with a key of its own (ES256).
type jwtSigner struct{ key *ecdsa.PrivateKey }

func newJWTSigner() (*jwtSigner, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("idp: make the token key: %w", err)
	}
	return &jwtSigner{key: key}, nil
}

// sign returns the token. Every token is unlike any other: it gets a jti.
func (s *jwtSigner) sign(claims map[string]any) (string, error) {
	claims["jti"] = secret("")
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("idp: encode claims: %w", err)
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"alg":"ES256","typ":"JWT","kid":"anteroom-test"}`)) + "." + enc.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	r, v, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return "", fmt.Errorf("idp: sign: %w", err)
	}
	sig := make([]byte, 64) // RFC 7518, 3.4: r and s, 32 bytes each
	r.FillBytes(sig[:32])
	v.FillBytes(sig[32:])
	return text + "." + enc.EncodeToString(sig), nil
}
