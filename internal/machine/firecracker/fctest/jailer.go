//go:build linux

package fctest

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// list is a flag that can be given more than once.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// jail is what the jailer was asked for.
type jail struct {
	settings Settings
	id, exec string
	uid, gid int
	base     string
	parent   string
	version  int
	groups   list
	limits   list
	extra    []string
	root     string
	beside   string // where the pretended programs lie
}

// JailerMain is the pretended jailer: as its documentation says, it copies
// Firecracker into a directory, sets limits and control groups, makes the
// directory the root of a new mount namespace, makes the devices there, and
// starts Firecracker in a process namespace of its own, as a user without
// rights. It knows only the options that a driver needs; others are refused.
func JailerMain(args []string) int {
	settings, beside, err := readSettings()
	if err != nil {
		return fail("Jailer", err)
	}
	j := jail{settings: settings, beside: beside}
	flags := flag.NewFlagSet("jailer", flag.ContinueOnError)
	version := flags.Bool("version", false, "")
	newPIDs := flags.Bool("new-pid-ns", false, "")
	flags.StringVar(&j.id, "id", "", "")
	flags.StringVar(&j.exec, "exec-file", "", "")
	flags.IntVar(&j.uid, "uid", -1, "")
	flags.IntVar(&j.gid, "gid", -1, "")
	flags.StringVar(&j.base, "chroot-base-dir", "/srv/jailer", "")
	flags.StringVar(&j.parent, "parent-cgroup", "firecracker", "")
	flags.IntVar(&j.version, "cgroup-version", 1, "")
	flags.Var(&j.groups, "cgroup", "")
	flags.Var(&j.limits, "resource-limit", "")
	if err := flags.Parse(args); err != nil {
		return fail("Jailer", err)
	}
	if *version {
		fmt.Printf("Jailer v%s\n\n", settings.Version)
		return 0
	}
	j.extra = flags.Args()
	if !*newPIDs || j.uid < 0 || j.gid < 0 || len(os.Environ()) > 0 {
		return fail("Jailer", fmt.Errorf("it is started as it should not be: %q, with %d variables", args, len(os.Environ())))
	}
	if err := j.run(); err != nil {
		return fail("Jailer", err)
	}
	return 0
}

func fail(who string, err error) int {
	fmt.Fprintf(os.Stderr, "%s error: %v\n", who, err)
	return 1
}

// step fails or hangs where it was told to.
func (j *jail) step(name string) error {
	if j.settings.JailerFails == name {
		return fmt.Errorf("told to fail at %s", name)
	}
	if j.settings.JailerHangs == name {
		if err := os.WriteFile(filepath.Join(j.root, ReachedFile), nil, 0o600); err != nil {
			return err
		}
		for {
			time.Sleep(time.Hour)
		}
	}
	return nil
}

func (j *jail) run() error {
	exec, err := filepath.EvalSymlinks(j.exec)
	if err != nil {
		return err
	}
	program := filepath.Base(exec)
	if !strings.Contains(program, "firecracker") {
		return fmt.Errorf("%s must have firecracker in its name", exec)
	}
	if j.base, err = filepath.EvalSymlinks(j.base); err != nil {
		return err
	}
	j.root = filepath.Join(j.base, program, j.id, "root")
	if err := os.MkdirAll(j.root, 0o700); err != nil {
		return err
	}
	for _, name := range []string{settingsFile, definitionFile} {
		if err := copyFile(filepath.Join(j.beside, name), filepath.Join(j.root, name), 0o444); err != nil {
			return err
		}
	}
	if err := j.step("begin"); err != nil {
		return err
	}
	if err := copyFile(exec, filepath.Join(j.root, program), 0o755); err != nil {
		return err
	}
	if err := j.limit(); err != nil {
		return err
	}
	if err := j.enterGroups(); err != nil {
		return err
	}
	if err := j.step("cgroups"); err != nil {
		return err
	}
	// What follows is this thread's own, and that of the process it starts.
	runtime.LockOSThread()
	if err := j.enterRoot(); err != nil {
		return err
	}
	j.root = "/"
	if err := j.step("jailed"); err != nil {
		return err
	}
	return j.start("/" + program)
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(mode), out.Close())
}

func (j *jail) limit() error {
	for _, l := range j.limits {
		name, text, _ := strings.Cut(l, "=")
		value, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return err
		}
		which, ok := map[string]int{"fsize": unix.RLIMIT_FSIZE, "no-file": unix.RLIMIT_NOFILE}[name]
		if !ok {
			return fmt.Errorf("no resource limit is called %q", name)
		}
		if err := unix.Setrlimit(which, &unix.Rlimit{Cur: value, Max: value}); err != nil {
			return err
		}
	}
	return nil
}

// enterGroups makes and enters the control groups.
func (j *jail) enterGroups() error {
	dirs := map[string]bool{}
	for _, g := range j.groups {
		file, value, ok := strings.Cut(g, "=")
		controller, _, dotted := strings.Cut(file, ".")
		if !ok || !dotted || value == "" || strings.Contains(value, "=") || strings.Contains(file, "/") {
			return fmt.Errorf("no cgroup setting: %q", g)
		}
		dir := filepath.Join("/sys/fs/cgroup", j.parent, j.id)
		if j.version == 1 {
			dir = filepath.Join("/sys/fs/cgroup", controller, j.parent, j.id)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if j.version == 2 {
			for _, above := range []string{"/sys/fs/cgroup", filepath.Dir(dir)} {
				if err := writeTo(filepath.Join(above, "cgroup.subtree_control"), "+"+controller); err != nil {
					return err
				}
			}
		}
		if err := writeTo(filepath.Join(dir, file), value); err != nil {
			return err
		}
		dirs[dir] = true
	}
	for dir := range dirs {
		if err := writeTo(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(os.Getpid())); err != nil {
			return err
		}
	}
	return nil
}

func writeTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// enterRoot makes the jail the root of a new mount namespace.
func (j *jail) enterRoot() error {
	const old = "old_root"
	for _, step := range []func() error{
		func() error { return unix.Unshare(unix.CLONE_NEWNS) },
		func() error { return unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, "") },
		func() error { return unix.Mount(j.root, j.root, "", unix.MS_BIND|unix.MS_REC, "") },
		func() error { return unix.Chdir(j.root) },
		func() error { return unix.Mkdir(old, 0o700) },
		func() error { return unix.PivotRoot(".", old) },
		func() error { return unix.Chdir("/") },
		func() error { return unix.Unmount(old, unix.MNT_DETACH) },
		func() error { return unix.Rmdir(old) },
		func() error { return unix.Chroot(".") },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("making the jail the root: %w", err)
		}
	}
	for _, dir := range []string{"/", "/dev", "/dev/net", "/run"} {
		if err := errors.Join(mkdirAll(dir), unix.Chmod(dir, 0o700), unix.Chown(dir, j.uid, j.gid)); err != nil {
			return err
		}
	}
	for name, number := range map[string]uint64{"/dev/net/tun": unix.Mkdev(10, 200), "/dev/kvm": unix.Mkdev(10, 232), "/dev/urandom": unix.Mkdev(1, 9)} {
		if err := unix.Mknod(name, unix.S_IFCHR|0o600, int(number)); err != nil { //nolint:gosec // small
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := unix.Chown(name, j.uid, j.gid); err != nil {
			return err
		}
	}
	return nil
}

func mkdirAll(dir string) error {
	if err := unix.Mkdir(dir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// start starts Firecracker as the first process of its own namespace.
func (j *jail) start(program string) error {
	args := append([]string{program, "--id", j.id, "--start-time-us", "1", "--start-time-cpu-us", "1", "--parent-cpu-time-us", "1"}, j.extra...)
	p, err := os.StartProcess(program, args, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID,
			Credential: &syscall.Credential{Uid: uint32(j.uid), Gid: uint32(j.gid)}, //nolint:gosec // not negative
		},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(program+".pid", []byte(strconv.Itoa(p.Pid)), 0o600)
}
