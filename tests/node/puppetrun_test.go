//go:build linux

package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/puppetrun"
	"understudy/sidecar/units"
)

// runsOnMachine are the claims about Puppet runs that need a systemd, with a program that only pretends to be the bootstrap.
var runsOnMachine = map[string]func(*testing.T){
	"a run that hangs is ended with all it has started": aHangingRunEndsAsAGroup,
	"the next sidecar finds the run":                    theNextSidecarFindsTheRun,
	"a run without effects has a place of its own":      aRunWithoutEffectsHasAPlaceOfItsOwn,
	"a program that is missing is an error":             aMissingProgramIsAnError,
}

// TestPuppetRunsWithARealSystemd copies this program to the machine and runs itself there, where it checks the claims.
func TestPuppetRunsWithARealSystemd(t *testing.T) {
	if os.Getenv(insideVariable) != "" {
		for name, f := range runsOnMachine {
			t.Run(name, f)
		}
		return
	}
	m := boot(t)
	program := m.installSelf(t)
	out, err := m.run(t.Context(), nil, "env", insideVariable+"=1", program, "-test.run=^TestPuppetRunsWithARealSystemd$", "-test.v", "-test.timeout=90s")
	t.Logf("on the machine:\n%s", out)
	if err != nil || strings.Count(out, "--- PASS: TestPuppetRunsWithARealSystemd/") != len(runsOnMachine) {
		t.Errorf("got %v, want all %d claims to hold", err, len(runsOnMachine))
	}
}

var commitA, commitB = strings.Repeat("a", 40), strings.Repeat("b", 40)

// stage is a directory that the units see as we do, with the program in it: a shell script, which knows the directory as $dir
// and the commit as $2.
func stage(t *testing.T, script string) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("/var/lib", "puppetrun")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if script == "" {
		return dir
	}
	const tell = `tell() {
  printf '{"version":1,"commit":"%s","noop":%s,"boot_id":"b","code":0,"kind":"%s"}' "$1" "$2" "$3" >$dir/.new && mv $dir/.new $dir/apply.json
}
`
	text := "#!/bin/sh\ndir=" + dir + "\n" + tell + script
	if err := os.WriteFile(filepath.Join(dir, "program"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runner is what a start of the sidecar makes.
func runner(t *testing.T, dir string, limit time.Duration) *puppetrun.Runner {
	t.Helper()
	bus := &units.Systemd{}
	t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	r, err := puppetrun.New(puppetrun.Config{
		Bus: bus, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Dir: dir, Boot: "b", Program: filepath.Join(dir, "program"), Limit: limit, Grace: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func noted(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// Neither the program nor its child, which is in a session of its own, heeds SIGTERM.
func aHangingRunEndsAsAGroup(t *testing.T) {
	dir := stage(t, `trap '' TERM
setsid sh -c 'trap "" TERM; exec sleep 1000' &
echo $! >$dir/child
sleep 1000
sleep 1000
`)
	began := time.Now()
	r := runner(t, dir, 2*time.Second)
	res, err := r.Run(t.Context(), puppetrun.Job{Commit: commitA, Why: puppetrun.Rollout})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 3*time.Second || took > 20*time.Second {
		t.Errorf("took %v, want the limit of 2s and the grace of a second", took)
	}
	if res.Good() || !res.Interrupted || !strings.Contains(res.Message, "had not ended after 2s") {
		t.Errorf("got %+v, want that it took too long", res)
	}
	if left := procs(dir); left != "" {
		t.Errorf("processes of the run are left: %s", left)
	}
	if child := noted(t, dir, "child"); child == "" || alive(child) {
		t.Errorf("its child %q is alive, or was never started", child)
	}
}

// alive reports whether there is a process of that number that is no zombie.
func alive(pid string) bool {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(data), ") Z ")
}

// procs lists the processes with dir on their command line.
func procs(dir string) (list string) {
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err.Error()
	}
	for _, f := range found {
		if line, err := os.ReadFile(f); err == nil && strings.Contains(string(line), dir+"/program") {
			list += strings.ReplaceAll(string(line), "\x00", " ") + "\n"
		}
	}
	return list
}

func theNextSidecarFindsTheRun(t *testing.T) {
	dir := stage(t, `echo began >>$dir/began
sleep 3
tell $2 false changed
`)
	job := puppetrun.Job{Commit: commitA, Why: puppetrun.Rollout}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if res, err := runner(t, dir, time.Minute).Run(ctx, job); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %+v, %v, want to have gone away in the middle", res, err)
	}
	second := runner(t, dir, time.Minute)
	if c, ok := second.UnderWay(); !ok || c.Job != job {
		t.Errorf("got %+v, %v, want the run under way", c, ok)
	}
	if res, err := second.Run(t.Context(), job); err != nil || !res.Good() || res.Kind != "changed" {
		t.Errorf("got %+v, %v, want the result of the run", res, err)
	}
	if got := noted(t, dir, "began"); got != "began" {
		t.Errorf("got %q, want one beginning", got)
	}
	if res, err := second.Run(t.Context(), puppetrun.Job{Commit: commitB, Why: puppetrun.Rollback}); err != nil || !res.Good() || res.Commit != commitB {
		t.Errorf("the next job: got %+v, %v, want a run of its own", res, err)
	}
}

func aRunWithoutEffectsHasAPlaceOfItsOwn(t *testing.T) {
	secret := "/run/understudy/puppetrun-test"
	if err := errors.Join(os.MkdirAll(filepath.Dir(secret), 0o755), os.WriteFile(secret, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(secret)
	dir := stage(t, `ls /run/understudy >$dir/saw
touch /run/understudy/left /tmp/puppetrun-left
systemctl show --property=CPUWeight,IOWeight,KillMode,RuntimeMaxUSec,TimeoutStopUSec understudy-apply.service >$dir/shown
tell $2 true "would change"
exit 3
`)
	r := runner(t, dir, time.Minute)
	res, err := r.Run(t.Context(), puppetrun.Job{Commit: commitA, Noop: true, Why: puppetrun.Drift})
	if err != nil || res.Kind != "would change" {
		t.Fatalf("got %+v, %v, want what the program told", res, err)
	}
	if saw := noted(t, dir, "saw"); saw != "" {
		t.Errorf("it saw %q, want nothing of the node's", saw)
	}
	for _, left := range []string{"/run/understudy/left", "/tmp/puppetrun-left"} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("it has left %s behind", left)
		}
	}
	for _, want := range []string{"CPUWeight=20", "IOWeight=20", "KillMode=control-group", "RuntimeMaxUSec=1min", "TimeoutStopUSec=1s"} {
		if shown := noted(t, dir, "shown"); !strings.Contains(shown+"\n", want+"\n") {
			t.Errorf("got\n%s\nwant %s", shown, want)
		}
	}
	// Its exit code was no success, so systemd would remember it; the next start must not be refused for that.
	if _, err := r.Run(t.Context(), puppetrun.Job{Commit: commitB, Noop: true, Why: puppetrun.Drift}); err != nil {
		t.Errorf("the next run: %v", err)
	}
}

func aMissingProgramIsAnError(t *testing.T) {
	r := runner(t, stage(t, ""), time.Minute)
	_, err := r.Run(t.Context(), puppetrun.Job{Commit: commitA, Why: puppetrun.Drift})
	if err == nil || !strings.Contains(err.Error(), "systemd says failed (exit-code)") {
		t.Errorf("got %v, want what systemd says", err)
	}
	if c, ok := r.UnderWay(); ok {
		t.Errorf("got %+v under way", c)
	}
}
