package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/image"
)

// host is the machine on which something was measured, and what was on it.
type host struct{ facts [][2]string }

func (h host) markdown() string {
	var b strings.Builder
	b.WriteString("## The machine\n\n| | |\n|---|---|\n")
	for _, f := range h.facts {
		fmt.Fprintf(&b, "| %s | %s |\n", f[0], f[1])
	}
	return b.String()
}

func (h *host) add(name, value string) { h.facts = append(h.facts, [2]string{name, value}) }

// describeHost is called before anything is started, for the load.
func describeHost(ctx context.Context, root string) (host, error) {
	var h host
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return h, err
	}
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return h, err
	}
	h.add("date", time.Now().UTC().Format("2006-01-02 15:04 MST"))
	h.add("commit", commit(ctx, root))
	h.add("load before the run (1, 5, 15 minutes)", strings.Join(strings.Fields(string(load))[:3], ", "))
	h.add("processor", value("/proc/cpuinfo", "model name"))
	h.add("processors", strconv.Itoa(runtime.NumCPU()))
	h.add("memory", strings.TrimSpace(memoryOf()))
	h.add("kernel", unix.ByteSliceToString(kernel.Release[:]))
	h.add("distribution", strings.Trim(value("/etc/os-release", "PRETTY_NAME"), `"`))
	h.add("hardware virtualisation", present("/dev/kvm"))
	bin := binDir(root)
	h.add("anteroom", output(ctx, filepath.Join(bin, "anteroom"), "version"))
	h.add("gVisor", strings.TrimPrefix(firstLine(output(ctx, filepath.Join(bin, "runsc"), "--version")), "runsc version "))
	h.add("Go", runtime.Version())
	h.add("Chromium in front of the page", output(ctx, "chromium", "--version"))
	if err := h.describeImage(bin); err != nil {
		return h, err
	}
	return h, nil
}

// describeImage tells of what the machines are made.
func (h *host) describeImage(bin string) error {
	dir := os.Getenv("ANTEROOM_IMAGE_DIR")
	if dir == "" {
		dir = "/var/cache/anteroom"
	}
	img, err := image.Find(image.Config{Dir: dir, Guest: filepath.Join(bin, "anteroom-guest")})
	if err != nil {
		return err
	}
	h.add("golden image", fmt.Sprintf("%.2f GiB, %s", float64(img.Size)/(1<<30), img.ID[:12]))
	var inside []string
	for _, name := range []string{"chromium", "tigervnc-standalone-server", "npm:@anthropic-ai/claude-code", "npm:@openai/codex", "npm:@google/gemini-cli"} {
		if i := slices.IndexFunc(img.Packages, func(p string) bool { return strings.HasPrefix(p, name+"=") }); i >= 0 {
			inside = append(inside, strings.TrimPrefix(strings.Replace(img.Packages[i], "=", " ", 1), "npm:"))
		}
	}
	h.add("in it", strings.Join(inside, ", "))
	return nil
}

// commit is the tree that is measured, as far as git tells.
func commit(ctx context.Context, root string) string {
	id := output(ctx, "git", "-c", "safe.directory="+root, "-C", root, "rev-parse", "--short=12", "HEAD")
	if output(ctx, "git", "-c", "safe.directory="+root, "-C", root, "status", "--porcelain", "--untracked-files=no") != "" {
		id += ", with changes"
	}
	return id
}

func output(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// value is the first value of a name in a file of names and values.
func value(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return "unknown"
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, val, found := strings.Cut(lines.Text(), ":")
		if !found {
			key, val, _ = strings.Cut(lines.Text(), "=")
		}
		if strings.TrimSpace(key) == name {
			return strings.TrimSpace(val)
		}
	}
	return "unknown"
}

func memoryOf() string {
	kib, err := strconv.ParseFloat(strings.TrimSuffix(value("/proc/meminfo", "MemTotal"), " kB"), 64)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f GiB", kib/(1<<20))
}

func present(path string) string {
	if _, err := os.Stat(path); err != nil {
		return "none (no " + path + ")"
	}
	return path + " is there"
}
