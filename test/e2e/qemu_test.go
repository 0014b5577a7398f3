package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/e2e/harness"
)

// TestSignInVM is the main job in virtual machines: a real kernel in QEMU, in
// emulation where there is no KVM, for the disposable browser and for the person's
// own machine. It takes minutes where everything else takes seconds.
func TestSignInVM(t *testing.T) {
	ctx := limit(t, 20*time.Minute)
	began := time.Now()
	rig, err := harness.Start(ctx, harness.Config{Driver: "qemu", StartTime: 10 * time.Minute, Sites: sites()})
	must(t, err)
	t.Cleanup(func() {
		if err := rig.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("server up, with its snapshot, after %.1fs", time.Since(began).Seconds())
	tool := tools[1]
	who := newPerson(t, ctx, rig, "virtual")
	began = time.Now()
	who.SignIn(t, ctx, tool.provider)
	t.Logf("signed in after %.1fs", time.Since(began).Seconds())
	if c := active(t, ctx, who, tool.provider); c.Account != who.Email() {
		t.Errorf("the account is %q, want %q", c.Account, who.Email())
	}
	user, err := rig.DB().UserByName(ctx, who.Name)
	must(t, err)
	vms, err := rig.DB().VMsOf(ctx, user.ID)
	must(t, err)
	restored := false
	for _, vm := range vms {
		if vm.Driver != "qemu" {
			t.Errorf("machine %s was made with %s", vm.ID, vm.Driver)
		}
		restored = restored || vm.Restored
	}
	if !restored {
		t.Error("no machine was restored from the snapshot")
	}
	must(t, who.Page.OpenTerminal(ctx))
	if out := who.Run(t, ctx, "uname -r; cat /proc/sys/kernel/modules_disabled"); !strings.Contains(out, "cloud-amd64") {
		t.Errorf("its kernel: %q", out)
	}
	out, code, err := who.Page.Shell(ctx, tool.status)
	must(t, err)
	if code != 0 || !strings.Contains(out, tool.says) {
		t.Errorf("%s: exit code %d, %q; want 0 and %q", tool.status, code, out, tool.says)
	}
	if out := who.Run(t, ctx, tool.prompt); !strings.Contains(out, tool.provider.Answer()) {
		t.Errorf("%s: %q; want %q", tool.prompt, out, tool.provider.Answer())
	}
	private(t, ctx, who, tool)
	sealed(t, rig)
}
