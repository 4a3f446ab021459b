package follow

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"understudy/bootstrap/control"
)

// playNode follows until it is killed. It prints each commit that it accepts.
func playNode(home, dir, first string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	repo, err := control.Open(filepath.Join(dir, "control.git"), filepath.Join(dir, "releases"), control.Options{})
	if err != nil {
		return fail(err)
	}
	ada, err := os.ReadFile(filepath.Join(home, "ada.pub"))
	if err != nil {
		return fail(err)
	}
	signers, err := control.ParseSigners("ada", []byte("ada@x "+string(ada)))
	if err != nil {
		return fail(err)
	}
	var f *Follower
	f, err = New(Config{
		Repo: repo, Branch: "main", Cluster: "blog", Origins: []control.Source{{URL: filepath.Join(home, "origin")}}, Signers: signers,
		StateFile: filepath.Join(dir, "control.json"), First: first, Every: time.Millisecond, Accepted: func() { fmt.Println(f.State().Head) },
	})
	if err != nil {
		return fail(err)
	}
	fmt.Println("ready")
	if err := f.Run(context.Background()); err != nil {
		return fail(err)
	}
	return 0
}

// TestKilledAnywhereWhatWasToldHolds: whatever was said to be accepted is, with its release whole, and the next start goes on from
// there.
func TestKilledAnywhereWhatWasToldHolds(t *testing.T) {
	o := newOrigin(t)
	r := newRig(t, o, nil)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	head, before := r.first, 0
	for round := range 30 {
		next := o.commit(map[string]string{"site.pp": fmt.Sprint(round), fmt.Sprintf("m/%d.pp", round): "x\n"})
		told := killedNode(t, self, []string{o.home, r.dir, r.first}, time.Duration(random.Int64N(int64(120*time.Millisecond))))
		r.start(o, func(c *Config) { c.Origins = nil })
		switch s := r.must(r.State().Head); {
		case s.Head != next && s.Head != head, told != "" && s.Head != told:
			t.Fatalf("round %d: got head %s after %q was told; before it was %s, pushed was %s", round, s.Head, told, head, next)
		case s.Trouble != "" || r.served(o) != s.Head:
			t.Fatalf("round %d: %s; serves %s, want %s", round, s.Trouble, r.served(o), s.Head)
		case s.Head == head:
			before++
		}
		r.start(o, nil)
		r.must(next)
		head = next
		if got, err := os.ReadFile(filepath.Join(r.State().Release, "site.pp")); err != nil || string(got) != fmt.Sprint(round) {
			t.Fatalf("round %d: the release has %q, %v", round, got, err)
		}
	}
	t.Logf("killed before the commit counted in %d of 30 rounds", before)
}

// killedNode runs a node, kills it so long after it is ready, and returns the last commit that it said it has accepted.
func killedNode(t *testing.T, self string, args []string, after time.Duration) (told string) {
	t.Helper()
	cmd := exec.Command(self, args...)
	cmd.Env, cmd.Stderr = []string{"FOLLOW_TEST_PART=node", "PATH=/usr/bin:/bin"}, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("got %q, want ready", lines.Text())
	}
	timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
	defer timer.Stop()
	for lines.Scan() {
		told = lines.Text()
	}
	err = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the node ended by itself: %v", err)
	}
	return told
}
