//go:build linux

package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/session"
)

// maxPages limits how many different pages one sign-in may open.
const maxPages = 5

// openTimeout limits how long the browser may take to accept a page.
const openTimeout = 30 * time.Second

// userCode is what a one-time code may look like: it is shown to a person.
var userCode = regexp.MustCompile(`^[A-Za-z0-9 -]{1,32}$`)

// loginWatch is the one owner of a running sign-in: everything that happens to
// it happens in untilEnd's loop.
type loginWatch struct {
	*Login
	tool  *tool
	hooks *hookServer

	pages    []string // opened
	fallback string   // an address from the output, in case no hook is called

	files      Captured // as last seen valid
	validSince time.Time
}

// untilEnd returns when the sign-in has ended one way or another. The tool may
// still run.
func (w *loginWatch) untilEnd(ctx context.Context) outcome {
	poll := time.NewTicker(w.cfg.Poll)
	defer poll.Stop()
	page := time.NewTimer(w.cfg.PageTimeout)
	defer page.Stop()
	grace := time.NewTimer(0)
	<-grace.C
	defer grace.Stop()
	for {
		var end *outcome
		select {
		case <-ctx.Done():
			return w.interrupted(ctx)
		case <-page.C:
			if len(w.pages) == 0 {
				return outcome{reason: session.ReasonLoginTimeout, err: errors.New("no sign-in page in time")}
			}
		case address := <-w.hooks.urls:
			end = w.open(ctx, address)
		case address := <-w.tool.urls:
			if w.fallback == "" {
				w.fallback = address
				grace.Reset(w.cfg.PatternGrace)
			}
		case <-grace.C:
			if len(w.pages) == 0 {
				end = w.open(ctx, w.fallback)
			}
		case code := <-w.tool.codes:
			w.setUserCode(code)
		case err := <-w.tool.acp:
			return w.answered(err)
		case <-w.tool.proc.done:
			return w.exited()
		case <-poll.C:
			if w.settled() {
				return outcome{take: true}
			}
		}
		if end != nil {
			return *end
		}
	}
}

func (w *loginWatch) interrupted(ctx context.Context) outcome {
	if errors.Is(context.Cause(ctx), errLoginOver) {
		return outcome{reason: session.ReasonExpired}
	}
	return outcome{reason: session.ReasonCancelled}
}

// open opens a page that the tool asked for. It returns the end of the sign-in
// if that was the first and must not be opened, or could not be; a later one is
// noted and left.
func (w *loginWatch) open(ctx context.Context, address string) *outcome {
	for _, p := range w.pages {
		if p == address {
			return nil
		}
	}
	if err := checkLoginURL(address, w.cfg.File.URL.Hosts); err != nil {
		host := hostForPeople(address)
		if len(w.pages) > 0 {
			w.keep(fmt.Sprintf("(%s asked to open a page of %s as well; it was not opened)", w.cfg.File.Title, host))
			return nil
		}
		return &outcome{
			reason: session.ReasonLoginURL,
			detail: fmt.Sprintf("%s asked to open %s.", w.cfg.File.Title, host),
			err:    fmt.Errorf("%w: %s", err, host),
		}
	}
	if len(w.pages) == maxPages {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := w.cfg.Open(ctx, address); err != nil {
		if len(w.pages) > 0 {
			return nil
		}
		return &outcome{reason: session.ReasonInternal, detail: "The browser could not open the sign-in page.", err: err}
	}
	w.pages = append(w.pages, address)
	w.update(func(s *guestapi.AuthStatus) { s.Phase = guestapi.PhaseOpened })
	return nil
}

func (w *loginWatch) setUserCode(code string) {
	if userCode.MatchString(code) {
		w.update(func(s *guestapi.AuthStatus) { s.UserCode = code })
	}
}

// answered is the end of an ACP dialogue.
func (w *loginWatch) answered(err error) outcome {
	if err == nil {
		return outcome{take: true}
	}
	// Where the dialogue ended because the tool did, its exit code says more.
	timer := time.NewTimer(w.cfg.StopGrace)
	defer timer.Stop()
	select {
	case <-w.tool.proc.done:
		return w.failedExit(w.tool.proc.exitCode(), err)
	case <-timer.C:
	}
	return outcome{reason: session.ReasonLoginExited, detail: w.cfg.File.Title + " refused the sign-in.", err: err}
}

// exited is the tool's own end.
func (w *loginWatch) exited() outcome {
	code := w.tool.proc.exitCode()
	if w.cfg.File.Login.Dialogue == "acp" {
		// It may have answered in the moment in which it ended.
		select {
		case err := <-w.tool.acp:
			if err == nil {
				return outcome{take: true}
			}
		case <-time.After(w.cfg.StopGrace):
		}
		return w.failedExit(code, errors.New("the tool ended during the dialogue"))
	}
	if code != 0 {
		return w.failedExit(code, errors.New("the tool failed"))
	}
	return outcome{take: true, exit: &code}
}

func (w *loginWatch) failedExit(code int, err error) outcome {
	return outcome{
		reason: session.ReasonLoginExited,
		detail: fmt.Sprintf("%s ended with exit code %d.", w.cfg.File.Title, code),
		exit:   &code,
		err:    fmt.Errorf("exit code %d: %w", code, err),
	}
}

// settled says whether the files have been valid and unchanged for so long that
// the sign-in is over although the tool goes on.
func (w *loginWatch) settled() bool {
	now, err := Capture(w.cfg.File, w.cfg.User)
	if err != nil {
		w.validSince = time.Time{}
		return false
	}
	if w.validSince.IsZero() || !sameFiles(w.files.Files, now.Files) {
		w.files, w.validSince = now, time.Now()
		return false
	}
	wait := w.cfg.Settle
	if w.cfg.File.Login.ExitsOnSuccess || w.cfg.File.Login.Dialogue == "acp" {
		wait = w.cfg.SlowSettle
	}
	return time.Since(w.validSince) >= wait
}

func sameFiles(a, b []guestapi.File) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Name != b[i].Name || !bytes.Equal(a[i].Content, b[i].Content) {
			return false
		}
	}
	return true
}
