package command

import (
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
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestMain lets the test binary play the children whose behaviour must be exact.
func TestMain(m *testing.M) {
	if part := os.Getenv("COMMAND_TEST_PART"); part != "" {
		os.Exit(play(part))
	}
	goleak.VerifyTestMain(m)
}

func play(part string) int {
	switch part {
	case "environment":
		env := os.Environ()
		slices.Sort(env)
		dir, _ := os.Getwd()
		fmt.Println(strings.Join(env, "\n"))
		fmt.Println(dir)
	case "numbers":
		for i := range 20_000 {
			fmt.Println(i)
		}
	case "memory":
		block := bytes.Repeat([]byte{1}, 64<<20)
		return int(block[len(block)-1]) + 6
	case "exit":
		fmt.Fprintln(os.Stderr, "going")
		return 4
	}
	return 0
}

func child(t *testing.T, part string) Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Cmd{Path: self, Env: []string{"COMMAND_TEST_PART=" + part}}
}

func sh(script string) Cmd {
	return Cmd{Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}
}

func TestNonZeroExitIsAResultAndNotAnError(t *testing.T) {
	res, err := Exec{}.Run(t.Context(), child(t, "exit"))
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode != 4 || string(res.Stderr) != "going\n" || len(res.Stdout) != 0 {
		t.Errorf("got %d, %q, %q; want 4, going, nothing", res.ExitCode, res.Stderr, res.Stdout)
	}
	if res.Took <= 0 {
		t.Errorf("took: got %v, want above zero", res.Took)
	}
}

func TestChildSeesExactlyTheGivenEnvironmentAndDirectory(t *testing.T) {
	c := child(t, "environment")
	c.Env = append(c.Env, "A=1")
	res, err := Exec{}.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if want := "A=1\nCOMMAND_TEST_PART=environment\n/\n"; string(res.Stdout) != want {
		t.Errorf("got %q, want %q", res.Stdout, want)
	}
	c.Dir = t.TempDir()
	if res, err = (Exec{}).Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(res.Stdout), "\n"+c.Dir+"\n") {
		t.Errorf("got %q, want it to end in %s", res.Stdout, c.Dir)
	}
}

func TestEmptyEnvironmentInheritsNothing(t *testing.T) {
	t.Setenv("COMMAND_TEST_LEAK", "yes")
	res, err := Exec{}.Run(t.Context(), Cmd{Path: "/usr/bin/env"})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Stdout) != 0 {
		t.Errorf("got %q, want no variable", res.Stdout)
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name string
		cmd  Cmd
		want error
	}{
		{"relative path", Cmd{Path: "true"}, nil},
		{"no path", Cmd{}, nil},
		{"relative directory", Cmd{Path: "/bin/true", Dir: "tmp"}, nil},
		{"environment without =", Cmd{Path: "/bin/true", Env: []string{"PATH"}}, nil},
		{"environment without key", Cmd{Path: "/bin/true", Env: []string{"=x"}}, nil},
		{"negative timeout", Cmd{Path: "/bin/true", Timeout: -1}, nil},
		{"missing program", Cmd{Path: "/nonexistent/program"}, fs.ErrNotExist},
		{"not executable", Cmd{Path: "/etc/passwd"}, fs.ErrPermission},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res, err := Exec{}.Run(t.Context(), tt.cmd)
			if _, ok := errors.AsType[*StartError](err); !ok {
				t.Fatalf("got %v, want a *StartError", err)
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want it to be %v", err, tt.want)
			}
			if res.ExitCode != -1 {
				t.Errorf("exit code: got %d, want -1", res.ExitCode)
			}
			if tt.want != nil {
				return
			}
			if _, err := new(Fake).Run(t.Context(), tt.cmd); err == nil {
				t.Error("the fake accepted what Exec refuses")
			}
		})
	}
}

func TestEndedContextStartsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mark := filepath.Join(t.TempDir(), "mark")
	for name, r := range map[string]Runner{"exec": Exec{}, "fake": new(Fake)} {
		_, err := r.Run(ctx, Cmd{Path: "/usr/bin/touch", Args: []string{mark}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", name, err)
		}
	}
	if _, err := os.Stat(mark); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that nothing ran", err)
	}
}

func TestInputReachesTheProgramAndMayBeLeftUnread(t *testing.T) {
	c := Cmd{Path: "/bin/cat", Stdin: strings.NewReader("hello")}
	res, err := Exec{}.Run(t.Context(), c)
	if err != nil || string(res.Stdout) != "hello" {
		t.Errorf("got %q, %v; want hello", res.Stdout, err)
	}
	c = Cmd{Path: "/bin/true", Stdin: bytes.NewReader(make([]byte, 1<<20))}
	if _, err := (Exec{}).Run(t.Context(), c); err != nil {
		t.Errorf("unread input: got %v, want no error", err)
	}
}

// groupOf reads the process group that a script prints first, so that the test can watch it die.
func groupOf(t *testing.T, pid chan<- int) func(string, string) {
	return func(_, line string) {
		n, err := strconv.Atoi(line)
		if err != nil {
			t.Errorf("line %q is no pid", line)
		}
		pid <- n
	}
}

// waitGone fails unless no process of the group is left soon.
func waitGone(t *testing.T, group int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err := unix.Kill(-group, 0); errors.Is(err, unix.ESRCH) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process group %d is still there", group)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestTimeoutKillsTheWholeGroupThoughItIgnoresSIGTERM(t *testing.T) {
	pid := make(chan int, 1)
	c := sh(`trap '' TERM; echo $$; (trap '' TERM; while :; do sleep 1; done) & while :; do sleep 1; done`)
	c.Timeout, c.Grace, c.OnLine = 300*time.Millisecond, 100*time.Millisecond, groupOf(t, pid)
	began := time.Now()
	res, err := Exec{}.Run(t.Context(), c)
	late, ok := errors.AsType[*TimeoutError](err)
	if !ok || late.After != c.Timeout {
		t.Errorf("got %v, want a *TimeoutError after %v", err, c.Timeout)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if res.ExitCode != -1 {
		t.Errorf("exit code: got %d, want -1", res.ExitCode)
	}
	waitGone(t, <-pid)
}

func TestGroupMemberThatOutlivesAnObedientLeaderIsKilled(t *testing.T) {
	pid := make(chan int, 1)
	c := sh(`(trap '' TERM; exec >/dev/null 2>&1; while :; do sleep 1; done) & echo $$; while :; do sleep 1; done`)
	c.Timeout, c.OnLine = 300*time.Millisecond, groupOf(t, pid)
	if _, err := (Exec{}).Run(t.Context(), c); err == nil {
		t.Error("got no error, want a *TimeoutError")
	}
	waitGone(t, <-pid)
}

func TestCancelStopsTheProgramGently(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("shutting down")
	c := sh(`trap 'echo tidy; exit 3' TERM; echo ready; while :; do sleep 0.05; done`)
	c.OnLine = func(_, line string) {
		if line == "ready" {
			cancel(reason)
		}
	}
	res, err := Exec{}.Run(ctx, c)
	if !errors.Is(err, reason) {
		t.Errorf("got %v, want %v", err, reason)
	}
	if res.ExitCode != 3 || string(res.Stdout) != "ready\ntidy\n" {
		t.Errorf("got %d, %q; want 3 and the last words", res.ExitCode, res.Stdout)
	}
}

func TestForeignSignalIsASignalError(t *testing.T) {
	_, err := Exec{}.Run(t.Context(), sh(`kill -SEGV $$`))
	if sig, ok := errors.AsType[*SignalError](err); !ok || sig.Signal != syscall.SIGSEGV {
		t.Errorf("got %v, want a *SignalError of SIGSEGV", err)
	}
}

func TestGrandchildThatKeepsOutputOpenDoesNotHoldUs(t *testing.T) {
	pid := make(chan int, 1)
	c := sh(`echo $$; sleep 60 & exit 0`)
	c.OnLine = groupOf(t, pid)
	began := time.Now()
	res, err := Exec{}.Run(t.Context(), c)
	if err != nil || res.ExitCode != 0 {
		t.Fatalf("got %d, %v; want 0", res.ExitCode, err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v, want about %v", took, drain)
	}
	group := <-pid
	if err := unix.Kill(-group, unix.SIGKILL); err != nil {
		t.Errorf("a program that ended by itself had its children killed: %v", err)
	}
	waitGone(t, group)
}

func TestOutputIsBoundedToItsHeadAndTail(t *testing.T) {
	c := child(t, "numbers")
	c.MaxOutput = 100
	lines := 0
	c.OnLine = func(string, string) { lines++ }
	res, err := Exec{}.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	out := string(res.Stdout)
	if !strings.HasPrefix(out, "0\n1\n2\n") || !strings.HasSuffix(out, "19998\n19999\n") {
		t.Errorf("got %q, want head and tail", out)
	}
	if len(out) > 160 || res.Omitted != 108_890-100 {
		t.Errorf("got %d bytes, %d omitted", len(out), res.Omitted)
	}
	if lines != 20_000 {
		t.Errorf("lines: got %d, want 20000", lines)
	}
}

func TestLinesAreBoundedAndValid(t *testing.T) {
	var got []string
	c := Cmd{Path: "/bin/cat", Stdin: strings.NewReader(
		"a\r\n\nb\xff\n" + strings.Repeat("x", 3*MaxLine) + "\nlast")}
	c.OnLine = func(stream, line string) { got = append(got, stream+":"+line) }
	if _, err := (Exec{}).Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	want := []string{"stdout:a", "stdout:", "stdout:b\uFFFD", "stdout:" + strings.Repeat("x", MaxLine) + "…", "stdout:last"}
	if !slices.Equal(got, want) {
		t.Errorf("got %.300q, want %.300q", got, want)
	}
}

func TestUsageIsReported(t *testing.T) {
	res, err := Exec{}.Run(t.Context(), child(t, "memory"))
	if err != nil || res.ExitCode != 7 {
		t.Fatalf("got %d, %v; want 7", res.ExitCode, err)
	}
	if res.MaxRSS < 60<<20 || res.MaxRSS > 1<<30 {
		t.Errorf("peak memory: got %d bytes, want a little over 64 MiB", res.MaxRSS)
	}
	if res.UserCPU+res.SystemCPU <= 0 {
		t.Errorf("processor time: got %v, want above zero", res.UserCPU+res.SystemCPU)
	}
}

func TestFakeBehavesTowardsItsCallerAsExec(t *testing.T) {
	var lines []string
	f := &Fake{Script: func(c Cmd) (Result, error) {
		return Result{ExitCode: 2, Stdout: []byte("0123456789\nx")}, nil
	}}
	c := Cmd{Path: "/bin/puppet", Stdin: strings.NewReader("in"), MaxOutput: 4,
		OnLine: func(stream, line string) { lines = append(lines, stream+" "+line) }}
	res, err := f.Run(t.Context(), c)
	if err != nil || res.ExitCode != 2 || res.Omitted != 8 {
		t.Errorf("got %+v, %v", res, err)
	}
	if want := []string{"stdout 0123456789", "stdout x"}; !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
	calls := f.Calls()
	if len(calls) != 1 || calls[0].Path != "/bin/puppet" || string(calls[0].Input) != "in" {
		t.Errorf("got %+v", calls)
	}
}

// The law of capture: nothing is lost below the limit; above it, head and tail are the stream's own.
func TestCaptureKeepsHeadAndTailHoweverTheStreamIsCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := capture{max: rapid.IntRange(1, 40).Draw(t, "max")}
		var all []byte
		for _, part := range rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 50)).Draw(t, "parts") {
			k.write(part)
			all = append(all, part...)
		}
		got := k.bytes()
		if len(all) <= k.max {
			if !bytes.Equal(got, all) || k.omitted() != 0 {
				t.Fatalf("got %q, want %q", got, all)
			}
			return
		}
		head, tail := all[:k.max/2], all[len(all)-(k.max-k.max/2):]
		if !bytes.HasPrefix(got, head) || !bytes.HasSuffix(got, tail) || k.omitted() != int64(len(all)-k.max) {
			t.Fatalf("got %q, want %q … %q", got, head, tail)
		}
	})
}
