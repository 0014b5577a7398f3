package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/e2e/people"
	"github.com/anteroom/anteroom/test/person"
)

// codes are the keys that type, row by row. An ISO keyboard has all of them, an
// ANSI one not IntlBackslash.
var codes = strings.Fields(`
	Backquote Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal
	KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight
	KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote Backslash
	IntlBackslash KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash`)

// layout is a keyboard's: what its keys make, in the order of codes, alone and
// with Shift; NUL is nothing, or a dead key. altGr is a list of characters with
// their keys, and of characters that a dead key and a letter make together dead
// has: the character, the dead key (with + before it if Shift is held) and the
// letter.
type layout struct {
	name, plain, shift, altGr, dead string
	text                            string
}

var layouts = []layout{
	{
		"US",
		"`1234567890-=qwertyuiop[]asdfghjkl;'\\\x00zxcvbnm,./", "~!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:\"|\x00ZXCVBNM<>?", "", "",
		"The quick brown fox jumps over the lazy dog. 0123456789 `~!@#$%^&*()-_=+[{]}\\|;:'\",<.>/?",
	},
	{
		"UK",
		"`1234567890-=qwertyuiop[]asdfghjkl;'#\\zxcvbnm,./", "¬!\"£$%^&*()_+QWERTYUIOP{}ASDFGHJKL:@~|ZXCVBNM<>?", "€ Digit4 ¦ Backquote é KeyE", "",
		"It cost £12 or €15, \"mate\" @ café ~#¬¦|\\",
	},
	{
		"German",
		"\x001234567890ß\x00qwertzuiopü+asdfghjklöä#<yxcvbnm,.-", "°!\"§$%&/()=?\x00QWERTZUIOPÜ*ASDFGHJKLÖÄ'>YXCVBNM;:_",
		"@ KeyQ € KeyE { Digit7 [ Digit8 ] Digit9 } Digit0 \\ Minus ~ BracketRight | IntlBackslash µ KeyM", "é Equal KeyE ê Backquote KeyE à +Equal KeyA",
		"Zwölf Boxkämpfer jagen Übermut, größte ÄÖÜ: 5 € §3 {[]}\\ ~|@µ° Café fête à",
	},
	{
		"French",
		"²&é\"'(-è_çà)=azertyuiop\x00$qsdfghjklmù*<wxcvbn,;:!", "\x001234567890°+AZERTYUIOP\x00£QSDFGHJKLM%µ>WXCVBN?./§",
		"~ Digit2 # Digit3 { Digit4 [ Digit5 | Digit6 ` Digit7 \\ Digit8 ^ Digit9 @ Digit0 ] Minus } Equal € KeyE",
		"ê BracketLeft KeyE î BracketLeft KeyI ï +BracketLeft KeyI ô BracketLeft KeyO Ê BracketLeft KeyE",
		"Où êtes-vous, garçon ? Là-bas à l'hôtel, naïf ! 1234567890 ²°§ù%µ {[|`\\^@]} 30 €",
	},
	{
		"Spanish",
		"º1234567890'¡qwertyuiop\x00+asdfghjklñ\x00ç<zxcvbnm,.-", "ª!\"·$%&/()=?¿QWERTYUIOP\x00*ASDFGHJKLÑ\x00Ç>ZXCVBNM;:_",
		"| Digit1 @ Digit2 # Digit3 € KeyE [ BracketLeft ] BracketRight { Quote } Backslash \\ Backquote",
		"á Quote KeyA é Quote KeyE í Quote KeyI ó Quote KeyO ú Quote KeyU ü +Quote KeyU",
		"¿Qué? ¡El pingüino Wenceslao hizo kilómetros, señor Ñandú! 1º ª·ç | @#[]{}\\ €",
	},
	{
		"Swedish",
		"§1234567890+\x00qwertyuiopå\x00asdfghjklöä'<zxcvbnm,.-", "½!\"#¤%&/()=?\x00QWERTYUIOPÅ\x00ASDFGHJKLÖÄ*>ZXCVBNM;:_",
		"@ Digit2 £ Digit3 $ Digit4 € KeyE { Digit7 [ Digit8 ] Digit9 } Digit0 \\ Minus | IntlBackslash µ KeyM", "é Equal KeyE ü BracketRight KeyU",
		"Flygande bäckasiner söka hwila på mjuka tuvor ÅÄÖ §½¤ @£$€ {[]}\\|µ idé Müller",
	},
	{
		"Polish",
		"`1234567890-=qwertyuiop[]asdfghjkl;'\\\x00zxcvbnm,./", "~!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:\"|\x00ZXCVBNM<>?",
		"ą KeyA ć KeyC ę KeyE ł KeyL ń KeyN ó KeyO ś KeyS ź KeyX ż KeyZ € KeyU Ą +KeyA Ć +KeyC Ę +KeyE Ł +KeyL Ń +KeyN Ó +KeyO Ś +KeyS Ź +KeyX Ż +KeyZ", "",
		"Zażółć gęślą jaźń, ZAŻÓŁĆ GĘŚLĄ JAŹŃ: 7 €",
	},
	{
		"Russian",
		"ё1234567890-=йцукенгшщзхъфывапролджэ\\\x00ячсмитьбю.", "Ё!\"№;%:?*()_+ЙЦУКЕНГШЩЗХЪФЫВАПРОЛДЖЭ/\x00ЯЧСМИТЬБЮ,", "", "",
		"Съешь же ещё этих мягких французских булок, да выпей чаю: ЁЖ №5!",
	},
	{
		"Greek",
		"`1234567890-=;ςερτυθιοπ[]ασδφγηξκλ\x00'\\<ζχψωβνμ,./", "~!@#$%^&*()_+:\x00ΕΡΤΥΘΙΟΠ{}ΑΣΔΦΓΗΞΚΛ\x00\"|>ΖΧΨΩΒΝΜ<>?", "€ KeyE",
		"ά Semicolon KeyA έ Semicolon KeyE ή Semicolon KeyH ί Semicolon KeyI ό Semicolon KeyO ύ Semicolon KeyY ώ Semicolon KeyV Ά Semicolon KeyA ϊ +Semicolon KeyI",
		"Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, Άννα ς Σ ϊ ή ύ έ ώ 3 €",
	},
	{
		"Turkish",
		"\"1234567890*-qwertyuıopğüasdfghjklşi,<zxcvbnmöç.", "é!'^+%&/()=?_QWERTYUIOPĞÜASDFGHJKLŞİ;>ZXCVBNMÖÇ:",
		"£ Digit2 # Digit3 $ Digit4 { Digit7 [ Digit8 ] Digit9 } Digit0 \\ Minus | Equal @ KeyQ € KeyE ₺ KeyT", "",
		"Pijamalı hasta yağız şoföre çabucak güvendi: İIıi ĞÜŞÖÇ é^ @#${[]}\\| 5 ₺ €",
	},
	{
		"Czech",
		"\x00+ěščřžýáíé=\x00qwertzuiopú)asdfghjklů§\x00\\yxcvbnm,.-", "\x001234567890%\x00QWERTZUIOP/(ASDFGHJKL\"!'|YXCVBNM?:_", "€ KeyE @ KeyV # KeyX", "ň +Equal KeyN ť +Equal KeyT ď +Equal KeyD ó Equal KeyO",
		"Příliš žluťoučký kůň úpěl ďábelské ódy (123) §! @# €",
	},
}

// ime are texts that no key makes: what the input method shows on the way, and
// what it makes of it.
var ime = []struct {
	name string
	way  []string
	text string
}{
	{"Japanese", []string{"k", "か", "かn", "かん", "かんじ", "漢字"}, "漢字"},
	{"Japanese, a sentence", []string{"にほんごを", "日本語をうt", "日本語を打つ"}, "日本語を打つ。カタカナ、ｶﾅ"},
	{"Chinese", []string{"ni", "ni hao"}, "你好，世界"},
	{"Korean", []string{"ㅎ", "하", "한"}, "한글"},
	{"emoji", nil, "😀🎉👍🏽👩‍👩‍👧🇸🇪❤️"},
}

// strokes are the keys that type text.
func (l layout) strokes(t *testing.T, text string) []person.Stroke {
	t.Helper()
	plain, shift := []rune(l.plain), []rune(l.shift)
	if len(plain) != len(codes) || len(shift) != len(codes) {
		t.Fatalf("%s has %d and %d keys, not %d", l.name, len(plain), len(shift), len(codes))
	}
	altGr, dead := strings.Fields(l.altGr), strings.Fields(l.dead)
	var out []person.Stroke
	for _, r := range text {
		c := string(r)
		if r == ' ' {
			out = append(out, person.Stroke{Code: "Space", Key: c})
		} else if i := slices.Index(plain, r); i >= 0 {
			out = append(out, person.Stroke{Code: codes[i], Key: c})
		} else if i := slices.Index(shift, r); i >= 0 {
			out = append(out, person.Stroke{Code: codes[i], Key: c, Shift: true})
		} else if i := slices.Index(altGr, c); i >= 0 && i%2 == 0 {
			code, shift := strings.CutPrefix(altGr[i+1], "+")
			out = append(out, person.Stroke{Code: code, Key: c, Shift: shift, AltGr: true})
		} else if i := slices.Index(dead, c); i >= 0 && i%3 == 0 {
			code, shift := strings.CutPrefix(dead[i+1], "+")
			out = append(out, person.Stroke{Code: code, Key: "Dead", Shift: shift}, person.Stroke{Code: dead[i+2], Key: c, Shift: strings.ToUpper(c) == c})
		} else {
			t.Fatalf("%s has no key for %q", l.name, c)
		}
	}
	return out
}

// typingPage tells what stands in its field.
const typingPage = `<!doctype html><meta charset="utf-8"><title>Type</title>
<style>html,body{margin:0;height:100%}textarea{box-sizing:border-box;width:100%;height:100%;font:24px sans-serif;border:8px solid #2b6152}</style>
<textarea autofocus spellcheck="false"></textarea>
<script>
const field = document.querySelector("textarea");
let n = 0, clicks = 0, keys = 0;
const tell = () => fetch("/", {method: "POST", body: JSON.stringify({n: ++n, clicks, keys, focused: document.hasFocus(), text: field.value})});
field.addEventListener("click", () => clicks++);
field.addEventListener("keydown", () => keys++);
for (const on of ["input", "focus", "blur", "click"]) field.addEventListener(on, tell);
for (const on of ["focus", "blur", "load"]) addEventListener(on, tell);
</script>`

// typingHost is where the page is.
const typingHost = "typing.example"

// typed is what the page has told last.
type typed struct {
	N, Clicks, Keys int
	Focused         bool // the window has the focus
	Text            string
}

// typingSite serves the page. It has one visitor at a time.
type typingSite struct {
	mu   sync.Mutex
	last typed
}

var typing typingSite

func (s *typingSite) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		s.forget()
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, typingPage)
		return
	}
	var now typed
	if json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&now) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.N > s.last.N {
		s.last = now
	}
}

func (s *typingSite) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = typed{}
}

func (s *typingSite) wait(ctx context.Context, what string, is func(typed) bool) error {
	return harness.Until(ctx, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !is(s.last) {
			return fmt.Errorf("%s: the remote page has %+v", what, s.last)
		}
		return nil
	})
}

// atTypingPage opens the page in a machine, of a server with more flags, and
// gives its field the focus.
func atTypingPage(t *testing.T, ctx context.Context, name string, flags ...string) (who people.Person, session string) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "typing.yaml"), fmt.Appendf(nil, providerFile, "typing", `"$BROWSER" https://typing.example/; sleep 600`), 0o600))
	who = newPerson(t, ctx, shared.rig, name)
	must(t, shared.rig.Stop(ctx))
	must(t, shared.rig.Restart(ctx, append(flags, "--providers-dir", dir)...))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		// The next server does not know the provider.
		must(t, who.Call(ctx, http.MethodDelete, "/sessions/"+session, nil, nil))
		must(t, shared.rig.WaitNoBrowserMachines(ctx))
		must(t, shared.rig.Stop(ctx))
		must(t, shared.rig.Restart(ctx))
	})
	must(t, who.Page.Home(ctx))
	typing.forget() // what the last test's page has told
	session, err := who.Page.Connect(ctx, "typing")
	must(t, err)
	must(t, typing.wait(ctx, "opened", func(s typed) bool { return s.N > 0 }))
	must(t, who.Page.WaitViewer(ctx))
	// The page may tell that it is there before its tab is in front: a click can
	// still go to what is shown in its place, as the keys after it would.
	for clicked := false; !clicked; {
		must(t, who.Page.ClickScreen(ctx))
		soon, cancel := context.WithTimeout(ctx, 3*time.Second)
		clicked = typing.wait(soon, "clicked", func(s typed) bool { return s.Clicks > 0 }) == nil
		cancel()
		must(t, ctx.Err())
	}
	return who, session
}

// TestKeyboards types on the keyboards of a dozen layouts, and with input
// methods, into a page in the machine: what arrives is what was typed.
func TestKeyboards(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	who, _ := atTypingPage(t, ctx, "keyboards")
	byVideo(t, ctx, who)
	before := ""
	check := func(t *testing.T, text string) {
		t.Helper()
		soon, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		// Right or wrong, it ends with the line's end, unless that was lost too.
		lines := strings.Count(before, "\n")
		_ = typing.wait(soon, "typed", func(s typed) bool { return strings.Count(s.Text, "\n") > lines })
		typing.mu.Lock()
		now := typing.last
		typing.mu.Unlock()
		if got := strings.TrimPrefix(now.Text, before); got != text+"\n" {
			t.Errorf("typed   %q\narrived %q\n%d keys, focused: %v", text, got, now.Keys, now.Focused)
		}
		before = now.Text
	}
	began := time.Now()
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			must(t, who.Page.Strike(ctx, l.strokes(t, l.text)))
			must(t, who.Page.Enter(ctx))
			check(t, l.text)
		})
	}
	for _, i := range ime {
		t.Run(i.name, func(t *testing.T) {
			must(t, who.Page.Compose(ctx, i.way, i.text))
			must(t, who.Page.Enter(ctx))
			check(t, i.text)
		})
	}
	byVideo(t, ctx, who) // still
	t.Logf("typed in %.1fs", time.Since(began).Seconds())
}

func byVideo(t *testing.T, ctx context.Context, who people.Person) {
	t.Helper()
	_, err := who.Page.WaitTransport(ctx, person.UDP)
	must(t, err)
}
