//go:build linux

package nspawn

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"understudy/sidecar/cloud/localcloud"
	"understudy/sidecar/cloud/localcloud/netns"
)

func TestMachineNamesFitAnInterfaceAndDifferBetweenClouds(t *testing.T) {
	for _, id := range []int{1, localcloud.FirstID, localcloud.FirstID + 99_999} {
		netns.PortOf(Name("a-cloud-with-quite-a-long-name", id)) // panics if it does not fit
	}
	if a, b := Name("one", localcloud.FirstID), Name("two", localcloud.FirstID); a == b {
		t.Errorf("two clouds call a machine %s", a)
	}
	if a, b := Name("one", localcloud.FirstID), Name("one", localcloud.FirstID+1); a == b {
		t.Errorf("two machines are called %s", a)
	}
}

func TestNetworkOfAMachineHasItsAddressesAndTheGateway(t *testing.T) {
	b := &Backend{opt: Options{Gateway: netip.MustParseAddr("10.77.0.1")}}
	got := b.network(localcloud.Machine{Private: netip.MustParseAddr("10.77.0.9"), Anchor: netip.MustParseAddr("10.16.0.9")})
	for _, want := range []string{"Address=10.77.0.9/16\n", "Address=10.16.0.9/16\n", "Gateway=10.77.0.1\n", "DNS=10.77.0.1\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
}

// TestCleanKillsWhatAKilledCloudLeft needs no cloud: a process in a machine's control group is all
// that is left of one.
func TestCleanKillsWhatAKilledCloudLeft(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes control groups: run it as root")
	}
	cloud := fmt.Sprintf("clean%d", os.Getpid())
	group, err := makeGroup(cloud, "u0000-1")
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	left := exec.Command("/bin/sleep", "300")
	left.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	if err := Clean(cloud); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := <-ended; !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v, want SIGKILL", err)
	}
	dir, err := groupDir(cloud)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", dir, err)
	}
	if err := Clean(cloud); err != nil {
		t.Errorf("cleaning again: %v", err)
	}
}

func TestMachineDirectoryThatWouldBreakTheMountIsRefused(t *testing.T) {
	_, err := New(Options{Dir: filepath.Join(t.TempDir(), "a:b")})
	if err == nil || !strings.Contains(err.Error(), "colon") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestConsoleShowsItsEndInErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	if err := os.WriteFile(path, []byte(strings.Repeat("early\n", 1000)+"late\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tail(path); len(got) > 2000 || !strings.HasSuffix(got, "late") {
		t.Errorf("got %d bytes ending in %q", len(got), got[max(0, len(got)-10):])
	}
}
