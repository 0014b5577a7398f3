package provider

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// credentials checks the credential files one by one and against each other.
func (c *checker) credentials(f *File) {
	c.that(len(f.Files) > 0 && len(f.Files) <= MaxCredentials, "files", "must have 1 to %d", MaxCredentials)
	captured := false
	for i := range f.Files {
		cr, field := &f.Files[i], fmt.Sprintf("files[%d]", i)
		c.that(credNameRE.MatchString(cr.Name), field+".name", "must be 1 to 64 of a-z, 0-9, _, . and -")
		c.that(cleanPath(cr.Path), field+".path", "must be a clean relative path below the home directory")
		for _, other := range f.Files[:i] {
			c.that(other.Name != cr.Name, field+".name", "is there twice")
			c.that(!within(cr.Path, other.Path) && !within(other.Path, cr.Path), field+".path", "is that of another file")
		}
		c.schema(field, cr)
		if cr.Secret {
			c.that(f.private(cr.Path), field+".path", "a secret file must be in one of target.private_dirs, and not in what that keeps")
		}
		captured = captured || cr.Required && cr.Secret
	}
	c.that(captured, "files", "at least one must be both required and secret")
}

func (c *checker) schema(field string, cr *Credential) {
	switch cr.Format {
	case "", "json":
	case "opaque":
		c.that(len(cr.NonEmpty) == 0 && len(cr.Types) == 0, field+".format", "an opaque file can have neither non_empty nor types")
	default:
		c.fail(field+".format", `must be "json" or "opaque"`)
	}
	c.that(len(cr.NonEmpty) <= maxList, field+".non_empty", "more than %d", maxList)
	for i, p := range cr.NonEmpty {
		c.pointer(fmt.Sprintf("%s.non_empty[%d]", field, i), p)
	}
	c.that(len(cr.Types) <= maxList, field+".types", "more than %d", maxList)
	for _, p := range sortedKeys(cr.Types) {
		c.pointer(field+".types", p)
		c.that(slices.Contains([]string{"string", "number", "boolean", "array", "object"}, cr.Types[p]),
			field+".types", `%s: must be "string", "number", "boolean", "array" or "object"`, p)
	}
}

func (c *checker) pointer(field, p string) {
	_, err := splitPointer(p)
	c.that(err == nil && p != "" && len(p) <= maxPointer && printable(p), field, "%q is not a JSON pointer", p)
}

// private says whether a path lies in memory on the person's own machine.
func (f *File) private(path string) bool {
	for _, d := range f.Target.PrivateDirs {
		if !within(path, d.Path) || path == d.Path {
			continue
		}
		first, _, _ := strings.Cut(strings.TrimPrefix(path, d.Path+"/"), "/")
		return !slices.Contains(d.Keep, first)
	}
	return false
}

// value checks where a label (or with isTime a time) is read. Times are also
// read by the host, which has the credential files only.
func (c *checker) value(field string, v *Value, isTime bool, f *File) {
	for depth := 0; v != nil; depth++ {
		c.that(depth < 2, field, `an "or" may not have another`)
		c.that(cleanPath(v.Path), field+".path", "must be a clean relative path below the home directory")
		c.pointer(field+".pointer", v.Pointer)
		c.that(len(v.JWT) <= maxText && printable(v.JWT), field+".jwt", "longer than %d bytes, or not printable", maxText)
		at := slices.IndexFunc(f.Files, func(cr Credential) bool { return cr.Path == v.Path })
		if at >= 0 {
			c.that(f.Files[at].Format != "opaque", field+".path", "is that of an opaque file")
		}
		if isTime {
			c.that(at >= 0, field+".path", "must be that of one of files")
			c.that(v.Unit == "s" || v.Unit == "ms" || v.Unit == "rfc3339", field+".unit", `must be "s", "ms" or "rfc3339"`)
		} else {
			c.that(v.Unit == "", field+".unit", "a label has none")
		}
		v, field = v.Or, field+".or"
		if depth > 2 {
			return
		}
	}
}

func (c *checker) target(f *File) {
	t := &f.Target
	c.that(len(t.PrivateDirs) <= 4, "target.private_dirs", "more than 4")
	for i, d := range t.PrivateDirs {
		c.privateDir(fmt.Sprintf("target.private_dirs[%d]", i), d, t.PrivateDirs[:i])
	}
	c.that(len(t.Seed) <= 16, "target.seed", "more than 16")
	for i, s := range t.Seed {
		field := fmt.Sprintf("target.seed[%d]", i)
		c.that(cleanPath(s.Path), field+".path", "must be a clean relative path below the home directory")
		c.that(len(s.Content) <= maxSeed, field+".content", "longer than %d bytes", maxSeed)
		c.that(utf8.ValidString(s.Content), field+".content", "is not UTF-8")
		for _, cr := range f.Files {
			c.that(!within(s.Path, cr.Path) && !within(cr.Path, s.Path), field+".path", "is that of a credential file")
		}
		for _, d := range t.PrivateDirs {
			c.that(!within(d.Path, s.Path), field+".path", "is that of a private directory")
			for _, k := range d.Keep {
				c.that(!within(s.Path, d.Path+"/"+k), field+".path", "lies in a kept directory")
			}
		}
	}
	if len(t.Status) > 0 {
		c.argv("target.status", t.Status)
	}
	c.env("target.env", t.Env)
}

// homeEnv checks that the variable moves all that is delivered, and that nothing
// sets it in a machine, where files are looked for in the home directory.
func (c *checker) homeEnv(f *File, h *HomeEnv) {
	c.envName("home_env.name", h.Name)
	for _, env := range []map[string]string{f.Login.Env, f.Target.Env} {
		_, set := env[h.Name]
		c.that(!set, "home_env.name", "is set by login.env or target.env")
	}
	c.that(h.Replaces == "." || cleanPath(h.Replaces), "home_env.replaces", `must be a clean relative path below the home directory, or "."`)
	c.that(len(h.Also) <= 8, "home_env.also", "more than 8")
	for i, p := range h.Also {
		c.that(cleanPath(p) && !strings.Contains(p, "/"), fmt.Sprintf("home_env.also[%d]", i), "must be the name of a file in the home directory")
	}
	moved := make(map[string]string)
	move := func(p string) {
		to, ok := h.Path(p)
		c.that(ok, "home_env", "does not move %s", p)
		c.that(moved[to] == "", "home_env", "moves %s to where %s is", p, moved[to])
		moved[to] = p
	}
	for i := range f.Files {
		move(f.Files[i].Path)
	}
	for _, s := range f.Target.Seed {
		move(s.Path)
	}
}

func (c *checker) privateDir(field string, d PrivateDir, before []PrivateDir) {
	c.that(cleanPath(d.Path), field+".path", "must be a clean relative path below the home directory")
	for _, o := range before {
		c.that(!within(d.Path, o.Path) && !within(o.Path, d.Path), field+".path", "overlaps another private directory")
	}
	c.that(len(d.Keep) <= maxList, field+".keep", "more than %d", maxList)
	for i, k := range d.Keep {
		at := fmt.Sprintf("%s.keep[%d]", field, i)
		c.that(cleanPath(k) && !strings.Contains(k, "/"), at, "must be the name of a subdirectory")
		c.that(!slices.Contains(d.Keep[:i], k), at, "is there twice")
	}
	c.that(len(d.Skip) <= maxList, field+".skip", "more than %d", maxList)
	for i, s := range d.Skip {
		c.that(len(s) <= maxPath && globRE.MatchString(s) && printable(s), fmt.Sprintf("%s.skip[%d]", field, i),
			"must be a file's name, with * at most at its beginning and its end")
	}
}

// Skips says whether a top-level file of the directory is not kept because of
// Skip.
func (d *PrivateDir) Skips(name string) bool {
	for _, s := range d.Skip {
		text := strings.Trim(s, "*")
		front, back := strings.HasPrefix(s, "*"), strings.HasSuffix(s, "*")
		switch {
		case front && back && strings.Contains(name, text),
			front && !back && strings.HasSuffix(name, text),
			!front && back && strings.HasPrefix(name, text),
			!front && !back && name == text:
			return true
		}
	}
	return false
}
