package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary play the process that is killed, or that runs out of disk.
func TestMain(m *testing.M) {
	switch os.Getenv("CONTROL_TEST_PART") {
	case "bootstrap":
		os.Exit(playBootstrap())
	case "full disk":
		os.Exit(playFullDisk())
	}
	goleak.VerifyTestMain(m)
}

// child runs this test binary again in a part.
func child(t *testing.T, part string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = []string{"CONTROL_TEST_PART=" + part, "PATH=/usr/bin:/bin"}
	cmd.Stderr = os.Stderr
	return cmd
}

// playBootstrap fetches and exports as bootstrap does. Arguments: directory, oldest commit, source.
func playBootstrap() int {
	r, err := Open(os.Args[1]+"/control.git", os.Args[1]+"/releases", Options{Oldest: os.Args[2]})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("ready")
	c, err := r.Fetch(context.Background(), []Source{{URL: os.Args[3]}}, "main")
	if err == nil {
		_, err = r.Export(context.Background(), c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestKilledAnywhereTheNextRunSucceeds(t *testing.T) {
	o := newOrigin(t)
	url := o.serveHTTP()
	for i := range 60 {
		o.write(fmt.Sprintf("puppet/m%d/f%d.pp", i%7, i), noise(2000+i))
	}
	oldest := o.commit("roles.yaml", "0\n")
	base := t.TempDir()
	r, err := Open(base+"/control.git", base+"/releases", Options{Oldest: oldest})
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	whole, killed := 50*time.Millisecond, 0
	for round := 0; killed < 25; round++ {
		if round == 250 {
			t.Fatalf("only %d of %d runs were killed in time", killed, round)
		}
		if round%3 == 0 { // a first boot; otherwise a push to what is there
			remove(t, r.Dir)
			remove(t, r.Releases)
		}
		commit := o.commit(fmt.Sprintf("puppet/new%d.pp", round), noise(500+round))
		cmd := child(t, "bootstrap", base, oldest, url)
		survived, took := killAfter(t, cmd, time.Duration(random.Int64N(int64(whole)+1)))
		if survived {
			whole = took
		} else {
			killed++
		}
		c := fetch(t, r, url)
		if c.Hash != commit {
			t.Fatalf("round %d: got %s, want %s", round, c.Hash, commit)
		}
		dir := export(t, r, c)
		if got, want := listing(t, dir), listing(t, checkout(t, o)); got != want {
			t.Fatalf("round %d: the release differs from the commit:\n%s\nwant\n%s", round, got, want)
		}
		if err := r.Descends(c, oldest); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		localGit(t, o, r, "fsck", "--full", "--strict")
		for _, name := range releases(t, r) {
			if !isHash(name) {
				t.Fatalf("round %d: left over: %s", round, name)
			}
		}
		beside, err := filepath.Glob(r.Dir + tempPrefix + "*")
		if err != nil || len(beside) > 0 {
			t.Fatalf("round %d: left over: %v, %v", round, beside, err)
		}
	}
}

// killAfter starts the child, and kills it with SIGKILL so long after it is ready.
func killAfter(t *testing.T, cmd *exec.Cmd, delay time.Duration) (survived bool, took time.Duration) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("got %q, %v; want ready", line, err)
	}
	ready := time.Now()
	timer := time.AfterFunc(delay, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if err != nil && (!ok || status.Signal() != syscall.SIGKILL) {
		t.Fatalf("the child failed by itself: %v", err)
	}
	return err == nil, time.Since(ready)
}

// checkout writes the origin's main branch to a new directory with the real git.
func checkout(t *testing.T, o *origin) string {
	t.Helper()
	dir := t.TempDir()
	o.git("--work-tree="+dir, "checkout", "--quiet", "--force", "main", "--", ".")
	return dir
}

// playFullDisk mounts a small file system of its own, and prints what comes of a fetch and an export,
// then of both with more room. Arguments: directory, kibibytes, source.
func playFullDisk() int {
	dir, size, source := os.Args[1], os.Args[2], os.Args[3]
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755,size="+size+"k")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mount a tmpfs in a namespace of our own:", err)
		return 1
	}
	r, err := Open(dir+"/control.git", dir+"/releases", Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for range 2 {
		c, err := r.Fetch(context.Background(), []Source{{URL: source}}, "main")
		fmt.Println("fetch", outcome(err))
		if err == nil {
			_, err = r.Export(context.Background(), c)
			fmt.Println("export", outcome(err))
		}
		left, _ := filepath.Glob(dir + "/*" + tempPrefix + "*")
		more, _ := filepath.Glob(dir + "/*/" + tempPrefix + "*")
		fmt.Println("left", len(left)+len(more))
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=16m"); err != nil {
			fmt.Fprintln(os.Stderr, "remount:", err)
			return 1
		}
	}
	return 0
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrDiskFull):
		return "disk full"
	}
	return err.Error()
}

func TestFullDiskIsSaidAndLeavesNothing(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", noise(400_000))
	for _, tt := range []struct{ kib, want string }{
		{"8", "fetch disk full, left 0, fetch ok, export ok, left 0"},
		{"200", "fetch disk full, left 0, fetch ok, export ok, left 0"},
		{"500", "fetch ok, export disk full, left 0, fetch ok, export ok, left 0"},
	} {
		cmd := child(t, "full disk", t.TempDir(), tt.kib, o.dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v (needs root or unprivileged user namespaces)", err)
		}
		if got := strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", ", "); got != tt.want {
			t.Errorf("%s KiB: got %q, want %q", tt.kib, got, tt.want)
		}
	}
}

func TestTwoProcessesTakeTurns(t *testing.T) {
	o := newOrigin(t)
	url := o.serveHTTP()
	for i := range 30 {
		o.write(fmt.Sprint("f", i), noise(1000+i))
	}
	oldest := o.commit("a", "1\n")
	base := t.TempDir()
	var children []*exec.Cmd
	for range 4 {
		cmd := child(t, "bootstrap", base, oldest, url)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		children = append(children, cmd)
	}
	for _, cmd := range children {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if got, want := listing(t, filepath.Join(base, "releases", oldest)), listing(t, checkout(t, o)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLockIsWaitedForNoLongerThanTheContext(t *testing.T) {
	r := newRepo(t, Options{})
	unlock, err := r.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Fetch(ctx, []Source{{URL: "/x"}}, "main"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", err)
	}
	unlock()
	if _, err := r.Fetch(t.Context(), []Source{{URL: "/x"}}, "main"); !errors.Is(err, ErrNoNetwork) {
		t.Errorf("got %v, want ErrNoNetwork", err)
	}
}
