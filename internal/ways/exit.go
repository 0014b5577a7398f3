package ways

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/store"
)

// Exit says whom to ask which address one is seen to come from.
type Exit struct {
	// URL answers with the address, at Pointer (RFC 6901) of a JSON document, or
	// as the whole text if Pointer is empty. Empty: nobody is asked, and no
	// address is verified.
	URL, Pointer string
	// Second is asked where the first fails or says something new. Optional.
	SecondURL, SecondPointer string
	// Every is how often it is asked while machines use a way; 0 means 60 s.
	Every time.Duration
}

// DecodoURL and DecodoPointer are Decodo's own.
const (
	DecodoURL     = "https://ip.decodo.com/json"
	DecodoPointer = "/proxy/ip"
)

// errDisagree says that two services saw two addresses.
var errDisagree = errors.New("the two services that were asked saw different addresses")

func (e Exit) check() error {
	if e.URL == "" && (e.SecondURL != "" || e.Pointer != "") {
		return errors.New("ways: a second opinion or a pointer without a first address to ask")
	}
	for _, one := range []struct{ url, pointer string }{{e.URL, e.Pointer}, {e.SecondURL, e.SecondPointer}} {
		if one.url == "" {
			if one.pointer != "" {
				return errors.New("ways: a pointer without an address to ask")
			}
			continue
		}
		if err := egress.CheckURL(one.url); err != nil {
			return fmt.Errorf("ways: who is asked for the exit address: %w", err)
		}
		if err := provider.CheckPointer(one.pointer); err != nil {
			return fmt.Errorf("ways: the pointer to the exit address: %w", err)
		}
	}
	if e.Every < 0 {
		return errors.New("ways: the time between two checks is negative")
	}
	return nil
}

// ask returns the address that an upstream leaves from. What is expected is
// believed of the first who says so; something new, at first sight too, only
// when the second opinion, if there is one, is the same.
func (e Exit) ask(ctx context.Context, p proxy, up egress.Upstream, expected string) (string, error) {
	first, err := askOne(ctx, p, up, e.URL, e.Pointer)
	if err == nil && first == expected || e.SecondURL == "" {
		return first, err
	}
	second, secondErr := askOne(ctx, p, up, e.SecondURL, e.SecondPointer)
	switch {
	case err != nil && secondErr != nil:
		return "", errors.Join(err, secondErr)
	case err != nil && second == expected:
		return second, nil
	case err != nil:
		return "", err // one alone is not enough for something new
	case secondErr != nil:
		return "", secondErr
	case first != second:
		return "", errDisagree
	}
	return first, nil
}

func askOne(ctx context.Context, p proxy, up egress.Upstream, url, pointer string) (string, error) {
	body, err := p.Fetch(ctx, up, url)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(body))
	if pointer != "" {
		text, err = provider.ReadLabel(&provider.Value{Path: "answer", Pointer: pointer}, func(string) ([]byte, error) { return body, nil })
		if err != nil {
			return "", err
		}
	}
	return store.ParseAddress(text)
}
