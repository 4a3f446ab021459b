package mailjournal

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

// TestMain lets the test binary play the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("MAILJOURNAL_TEST_DIR"); dir != "" {
		fmt.Fprintln(os.Stderr, play(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// play appends and closes from four goroutines for ever, and prints what was acknowledged, a line a write.
func play(dir string) error {
	j, err := Open(Options{Dir: dir, Segment: 32 << 10, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	os.Stdout.WriteString("ready\n")
	ctx := context.Background()
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			for i := 0; ; i++ {
				e := entry(strings.Repeat("k", rand.IntN(3000)))
				if err := j.Append(ctx, e); err != nil {
					return err
				}
				os.Stdout.WriteString("open " + e.ID.String() + "\n")
				if i%4 == 0 {
					continue
				}
				os.Stdout.WriteString("closing " + e.ID.String() + "\n")
				if err := j.Finish(ctx, e.ID, Delivered); err != nil {
					return err
				}
				os.Stdout.WriteString("closed " + e.ID.String() + "\n")
			}
		})
	}
	return g.Wait()
}

func TestKilledAnywhereWhatWasAcknowledgedIsThere(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := options(t.TempDir())
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	said := make(map[string]string) // ID → its last word
	for round := range 60 {
		cmd := exec.Command(self)
		cmd.Env = []string{"MAILJOURNAL_TEST_DIR=" + o.Dir}
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "ready" {
			t.Fatalf("seed %d, round %d: got %q, want ready", seed, round, lines.Text())
		}
		timer := time.AfterFunc(time.Duration(random.Int64N(int64(30*time.Millisecond))), func() { cmd.Process.Kill() })
		for lines.Scan() {
			if what, id, ok := strings.Cut(lines.Text(), " "); ok && len(id) == 32 {
				said[id] = what
			}
		}
		timer.Stop()
		if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Fatalf("seed %d, round %d: the child ended with %v", seed, round, err)
		}
		compare(t, o, said)
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, round)
		}
	}
	t.Logf("seed %d: %d entries", seed, len(said))
}

// compare opens the journal as the next process does, and looks for what was acknowledged. What was written and not yet
// acknowledged may be there or not.
func compare(t *testing.T, o Options, said map[string]string) {
	t.Helper()
	j := open(t, o)
	defer finish(t, j)
	for _, d := range j.Damage() {
		if !d.Torn {
			t.Errorf("damage: %v", d)
		}
	}
	there := make(map[string]bool)
	for _, m := range j.Pending() {
		if _, err := j.Read(m.ID); err != nil {
			t.Error(err)
		}
		there[m.ID.String()] = true
	}
	for id, what := range said {
		if what == "open" && !there[id] {
			t.Errorf("%s was acknowledged and is not there", id)
		}
		if what == "closed" && there[id] {
			t.Errorf("%s was closed and is open again", id)
		}
	}
}
