package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/test/idp"
)

// Memory is read again and again until it stands still.
const (
	readEvery   = 2 * time.Second
	standsStill = 0.01 // of what was read before
	settleTime  = time.Minute
)

// memoryRow is what n waiting machines of one tool take.
type memoryRow struct {
	tool     idp.Provider
	machines int
	total    pss
	server   pss
	host     int64 // what the host has less of, in bytes
	counts   int   // address spaces
}

// pss is a proportional set size in bytes: memory that several processes share
// is divided among them.
type pss struct{ all, anon, file, shmem int64 }

const memoryIntro = `
## Memory of machines that wait for their person

Each shows its tool's sign-in page and has a viewer connected; one tool at a time,
since the tools differ. The sum is of the PSS of all processes of a machine
(sandbox, gofer, stubs; /proc/PID/smaps_rollup), those that share an address space counted once, read when it no longer changes.
What they map of the golden image is divided among those that map it. "Host" is
by how much MemAvailable has fallen since before the tool's first, divided by the
machines: it includes what the kernel and the server need for them.

| tool | waiting | PSS each | of it anonymous | files | shared memory | address spaces each | host, each | server's own PSS | target | met |
|---|---|---|---|---|---|---|---|---|---|---|
`

func (m memoryRow) row() string {
	each := func(n int64) string { return mb(n / int64(m.machines)) }
	return fmt.Sprintf("| %s | %d | %s | %s | %s | %s | %.1f | %s | %s | ≤ %s | %s |\n",
		m.tool, m.machines, each(m.total.all), each(m.total.anon), each(m.total.file), each(m.total.shmem),
		float64(m.counts)/float64(m.machines), each(m.host), mb(m.server.all), mb(targetMemory),
		met(m.total.all/int64(m.machines) <= targetMemory))
}

func mb(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/megabyte) }

// memory measures machines that wait, of one tool after the other.
func (b *bench) memory(ctx context.Context, s *subject) error {
	var errs []error
	for _, tool := range providers {
		if err := b.memoryOf(ctx, s, tool); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", tool, err), s.endAll(ctx))
		}
	}
	return errors.Join(errs...)
}

// memoryOf measures machines of one tool, more and more of them.
func (b *bench) memoryOf(ctx context.Context, s *subject, tool idp.Provider) error {
	before, err := available()
	if err != nil {
		return err
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	var all []*waiting
	defer func() {
		for _, w := range all {
			w.close()
		}
	}()
	for _, n := range []int{1, 5, 10} {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, runTime)
			defer cancel()
			more, err := s.startMany(ctx, n-len(all), tool)
			for _, w := range more {
				watching.Go(w.screen.follow)
			}
			all = append(all, more...)
			return err
		}()
		if err != nil {
			return err
		}
		row, err := s.settled(ctx, all)
		if err != nil {
			return err
		}
		now, err := available()
		if err != nil {
			return err
		}
		row.tool, row.host = tool, before-now
		b.report.memory = append(b.report.memory, row)
	}
	for _, w := range all {
		w.close()
	}
	return s.endAll(ctx)
}

// settled reads until the memory stands still.
func (s *subject) settled(ctx context.Context, all []*waiting) (memoryRow, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	last, err := s.read(ctx, all)
	for err == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return last, context.Cause(ctx)
		}
		var row memoryRow
		row, err = s.read(ctx, all)
		change := float64(row.total.all - last.total.all)
		last = row
		if err == nil && max(change, -change) <= standsStill*float64(row.total.all) {
			return row, nil
		}
	}
	return last, err
}

// read adds up the processes of all machines.
func (s *subject) read(ctx context.Context, all []*waiting) (memoryRow, error) {
	row := memoryRow{machines: len(all)}
	procs, err := processes()
	if err != nil {
		return row, err
	}
	for _, w := range all {
		now, err := s.user.Session(ctx, w.id)
		if err != nil {
			return row, err
		}
		of := procs.of(func(args string) bool {
			return strings.Contains(args, s.rig.StateDir()+"/") && strings.Contains(args, now.VMID)
		})
		if len(of) == 0 {
			return row, fmt.Errorf("machine %s has no process", now.VMID)
		}
		for _, pid := range distinct(of) {
			p, err := readPSS(pid)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue // it has just ended
			}
			if err != nil {
				return row, err
			}
			row.total.add(p)
			row.counts++
		}
	}
	row.server, err = readPSS(s.rig.PID())
	return row, err
}

func (p *pss) add(o pss) {
	p.all += o.all
	p.anon += o.anon
	p.file += o.file
	p.shmem += o.shmem
}

// table is all processes of the host: their arguments and parents.
type table map[int]process

type process struct {
	parent int
	args   string
}

func processes() (table, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := table{}
	for _, f := range files {
		stat, err := os.ReadFile(f)
		if err != nil {
			continue // it has just ended
		}
		args, err := os.ReadFile(filepath.Join(filepath.Dir(f), "cmdline"))
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			continue
		}
		// After the name in parentheses, which may hold anything: state, parent.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		parent, err := strconv.Atoi(string(fields[1]))
		if err != nil {
			continue
		}
		all[pid] = process{parent, string(bytes.ReplaceAll(args, []byte{0}, []byte{' '}))}
	}
	return all, nil
}

// of returns the processes whose arguments match, and all that descend from
// them: a sandbox's stubs have no arguments of their own.
func (t table) of(match func(args string) bool) []int {
	var found []int
	for pid := range t {
		for p := pid; p > 1; p = t[p].parent {
			if match(t[p].args) {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// distinct leaves one process of each that share an address space: gVisor's
// stubs have one process for each thread, and each of them reports the whole.
func distinct(pids []int) []int {
	const compareVM = 1 // KCMP_VM
	var found []int
	for _, pid := range slices.Sorted(slices.Values(pids)) {
		if !slices.ContainsFunc(found, func(other int) bool {
			order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(other), compareVM, 0, 0, 0) //nolint:gosec // process numbers
			return errno == 0 && order == 0
		}) {
			found = append(found, pid)
		}
	}
	return found
}

func readPSS(pid int) (pss, error) {
	var p pss
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return p, err
	}
	defer func() { _ = f.Close() }()
	into := map[string]*int64{"Pss:": &p.all, "Pss_Anon:": &p.anon, "Pss_File:": &p.file, "Pss_Shmem:": &p.shmem}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || into[fields[0]] == nil {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return p, err
		}
		*into[fields[0]] = kib << 10
	}
	return p, lines.Err()
}

// available is the host's MemAvailable in bytes.
func available() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no MemAvailable")
}
