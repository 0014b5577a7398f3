package gvisor

import (
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/cgroup"
)

// Paths inside a machine that the driver gives to the agent.
const (
	guestAgent   = "/usr/sbin/anteroom-guest"
	guestLineDir = "/run/anteroom/line"
	guestHome    = "/home/person"
)

// agentCaps is what the agent may do as the machine's root: become the person,
// own files, end processes, mount file systems in memory, and make the TUN
// device of the sandbox's own network, which has nothing else in it but lo. It
// has no CAP_NET_RAW, CAP_SYS_PTRACE or CAP_MKNOD.
var agentCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_ADMIN", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_ADMIN",
}

// bundle is the OCI description of a machine. All but the sources of its
// mounts is the same for every browser machine, as restoring demands.
func (d *Driver) bundle(spec machine.Spec) *specs.Spec {
	home := specs.Mount{Destination: guestHome, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=0755"}}
	if spec.Kind == machine.CLI {
		home = specs.Mount{Destination: guestHome, Type: "bind", Source: spec.Home, Options: []string{"rbind", "rw", "nosuid", "nodev"}}
	}
	tmpfs := func(at string) specs.Mount {
		return specs.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev"}}
	}
	memory := spec.MemoryBytes
	s := &specs.Spec{
		Version:  "1.2.0",
		Hostname: "anteroom",
		Root:     &specs.Root{Path: d.emptyRoot()},
		Process: &specs.Process{
			Args:            []string{guestAgent, "init", "--kind", string(spec.Kind), "--line", "unix:" + guestLineDir + "/" + lineSocket},
			Env:             []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Cwd:             "/",
			NoNewPrivileges: true,
			Capabilities:    &specs.LinuxCapabilities{Bounding: agentCaps, Effective: agentCaps, Permitted: agentCaps},
			Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 65536, Soft: 65536}, {Type: "RLIMIT_CORE"}},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
			tmpfs("/tmp"), tmpfs("/run"), tmpfs("/dev/shm"),
			home,
			{Destination: guestLineDir, Type: "bind", Source: d.lineDir(spec.ID), Options: []string{"rbind", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
			},
			Resources: &specs.LinuxResources{},
		},
		Annotations: map[string]string{
			"dev.gvisor.spec.rootfs.source":  d.cfg.Image,
			"dev.gvisor.spec.rootfs.type":    "erofs",
			"dev.gvisor.spec.rootfs.overlay": "memory",
		},
	}
	if d.cgroups {
		s.Linux.CgroupsPath = cgroup.Path(spec.ID)
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
		period := uint64(100_000)
		quota := int64(spec.CPUs * float64(period))
		s.Linux.Resources.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	return s
}

func (d *Driver) machineDir(id string) string { return filepath.Join(d.cfg.StateDir, "machines", id) }
func (d *Driver) lineDir(id string) string    { return filepath.Join(d.machineDir(id), "line") }
func (d *Driver) logFile(id string) string    { return filepath.Join(d.machineDir(id), "runsc.log") }
func (d *Driver) pidFile(id string) string    { return filepath.Join(d.machineDir(id), "pid") }
func (d *Driver) runscRoot() string           { return filepath.Join(d.cfg.StateDir, "runsc") }
func (d *Driver) emptyRoot() string           { return filepath.Join(d.cfg.StateDir, "empty") }
