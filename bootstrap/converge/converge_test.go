package converge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"understudy/bootstrap/command"
)

var update = flag.Bool("update", false, "rewrite testdata/outcomes.golden")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recording is one real run of Puppet 8.10, as testdata holds it.
type recording struct {
	res             command.Result
	summary, report string
	catalog         string // which Puppet leaves when it is told to
}

func load(t *testing.T, name string) recording {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	head, files, _ := strings.Cut(string(data), "-- summary\n")
	var r recording
	files, r.catalog, _ = strings.Cut(files, "-- catalog\n")
	r.summary, r.report, _ = strings.Cut(files, "-- report\n")
	for line := range strings.Lines(head) {
		if rest, ok := strings.CutPrefix(line, "stdout: "); ok {
			r.res.Stdout = append(r.res.Stdout, rest...)
		}
		if rest, ok := strings.CutPrefix(line, "stderr: "); ok {
			r.res.Stderr = append(r.res.Stderr, rest...)
		}
		fmt.Sscanf(line, "exit %d", &r.res.ExitCode)
	}
	return r
}

// testPaths are those of a node on which nothing has happened yet.
func testPaths(t *testing.T) Paths {
	t.Helper()
	p := PathsUnder(t.TempDir())
	p.Proc = t.TempDir()
	return p
}

// playing returns a Puppet that does what the recording did.
func playing(t *testing.T, r recording) (Puppet, *command.Fake) {
	t.Helper()
	fake := &command.Fake{Script: func(c command.Cmd) (command.Result, error) {
		writeAs(t, c.Args, "--lastrunfile=", r.summary)
		writeAs(t, c.Args, "--lastrunreport=", r.report)
		leaveCatalog(t, c.Args, r.catalog)
		return r.res, nil
	}}
	return Puppet{Runner: fake, Binary: "/usr/bin/puppet", Paths: testPaths(t)}, fake
}

func writeAs(t *testing.T, args []string, option, content string) {
	t.Helper()
	if content == "" {
		return
	}
	for _, a := range args {
		if path, ok := strings.CutPrefix(a, option); ok {
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestOutcomesOfRecordedRuns holds what an operator reads about each kind of run of a real Puppet.
func TestOutcomesOfRecordedRuns(t *testing.T) {
	runs := []struct{ name, release string }{
		{"unchanged", "small"}, {"changed", "small"}, {"noop", "small"},
		{"class", "fail2"}, {"syntax", "fail3"}, {"fail_function", "fail5"}, {"template", "fail7"}, {"hiera", "fail8"},
		{"parameter", "fail9"}, {"cycle", "faila"}, {"no_environment", "failc"},
		{"failed", "fail1"}, {"disk_full", "full"}, {"dpkg_locked", "lock"},
	}
	var got strings.Builder
	for _, run := range runs {
		p, _ := playing(t, load(t, run.name))
		r := Run{Release: "/var/lib/understudy/releases/" + run.release, Commit: run.release}
		if run.name == "noop" {
			r.Noop, r.Scratch = true, t.TempDir()
		}
		o, err := p.Apply(t.Context(), r)
		if err != nil {
			t.Fatalf("%s: %v", run.name, err)
		}
		if strings.Contains(o.Message, "\n") {
			t.Errorf("%s: message has several lines", run.name)
		}
		fmt.Fprintf(&got, "%s: %v\n", run.name, o.Kind)
		if o.Message != "" {
			fmt.Fprintf(&got, "    %s\n", o.Message)
		}
		for _, f := range o.Failures {
			fmt.Fprintf(&got, "    - %s\n", f)
		}
	}
	golden := filepath.Join("testdata", "outcomes.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
	}
}

func TestSummaryOfAnEarlierRunIsNotBelieved(t *testing.T) {
	p, _ := playing(t, recording{res: command.Result{ExitCode: 0}}) // exits 0 and writes nothing
	if err := os.MkdirAll(p.Paths.State, 0o755); err != nil {
		t.Fatal(err)
	}
	old := load(t, "unchanged")
	if err := os.WriteFile(filepath.Join(p.Paths.State, "last_run_summary.yaml"), []byte(old.summary), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "small"})
	if err != nil {
		t.Fatal(err)
	}
	if o.Kind != NoSummary || o.Summary != nil {
		t.Errorf("got %v with %+v, want no summary", o.Kind, o.Summary)
	}
}

func TestSummaryOfAnotherCommitIsNotBelieved(t *testing.T) {
	p, _ := playing(t, load(t, "unchanged"))
	o, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "other"})
	if err != nil {
		t.Fatal(err)
	}
	if o.Kind != NoSummary || !strings.Contains(o.Message, `is of "small", not of "other"`) {
		t.Errorf("got %v: %s; want no summary and both versions named", o.Kind, o.Message)
	}
}

func TestReleaseWithItsOwnConfigVersionIsFollowed(t *testing.T) {
	p, fake := playing(t, load(t, "changed"))
	release := t.TempDir()
	if err := os.MkdirAll(filepath.Join(release, "puppet"), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := "# ours\nmodulepath = site-modules:modules\nmanifest = 'site'\nconfig_version = scripts/version.sh $environment\n"
	if err := os.WriteFile(filepath.Join(release, "puppet/environment.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := p.Apply(t.Context(), Run{Release: release, Commit: "other"})
	if err != nil || o.Kind != Changed {
		t.Fatalf("got %v, %v; want changed", o.Kind, err)
	}
	args := fake.Calls()[0].Args
	if got, want := args[len(args)-1], filepath.Join(release, "puppet/site"); got != want {
		t.Errorf("manifest: got %s, want %s", got, want)
	}
}

func TestFailureHiddenByTheExitCodeIsSeen(t *testing.T) {
	r := load(t, "failed")
	r.res.ExitCode = 0
	p, _ := playing(t, r)
	o, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "fail1"})
	if err != nil || o.Kind != Failed {
		t.Errorf("got %v, %v; want failed", o.Kind, err)
	}
}

func TestDisabledPuppetIsNotRun(t *testing.T) {
	p, fake := playing(t, load(t, "unchanged"))
	for _, file := range p.Paths.Disabled {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(`{"disabled_message":"moving the disk"}`), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "small"})
		no, ok := errors.AsType[*DisabledError](err)
		if !ok || no.File != file || no.Reason != "moving the disk" {
			t.Errorf("got %v, want that %s says why", err, file)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(fake.Calls()); n != 0 {
		t.Errorf("got %d programs run, want none", n)
	}
}

func TestSecondRunWaitsForTheFirstAndNamesIt(t *testing.T) {
	p, _ := playing(t, load(t, "unchanged"))
	unlock, err := p.lock(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	r := Run{Release: "/r", Commit: "small"}
	_, err = p.Apply(t.Context(), r)
	if held, ok := errors.AsType[*LockedError](err); !ok || held.PID != os.Getpid() {
		t.Errorf("got %v, want a *LockedError with our pid", err)
	}
	timer := time.AfterFunc(150*time.Millisecond, unlock)
	defer timer.Stop()
	r.LockWait = 20 * time.Second
	if o, err := p.Apply(t.Context(), r); err != nil || o.Kind != Unchanged {
		t.Errorf("after waiting: got %v, %v; want unchanged", o.Kind, err)
	}
}

func TestRunThatOutlivedItsStarterIsWaitedFor(t *testing.T) {
	p, fake := playing(t, load(t, "unchanged"))
	orphan := filepath.Join(p.Paths.Proc, "4242")
	if err := os.Mkdir(orphan, 0o755); err != nil {
		t.Fatal(err)
	}
	line := "/usr/bin/ruby\x00/usr/bin/puppet\x00apply\x00--lastrunfile=" + p.Paths.State + "/last_run_summary.yaml\x00"
	if err := os.WriteFile(filepath.Join(orphan, "cmdline"), []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "small"})
	if held, ok := errors.AsType[*LockedError](err); !ok || held.PID != 4242 {
		t.Errorf("got %v, want a *LockedError with pid 4242", err)
	}
	if n := len(fake.Calls()); n != 0 {
		t.Errorf("got %d programs run, want none", n)
	}
}

func TestInterruptedDpkgIsRepairedFirst(t *testing.T) {
	p, fake := playing(t, load(t, "unchanged"))
	if err := os.MkdirAll(filepath.Join(p.Paths.DpkgUpdates, "0001"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "small"}); err != nil {
		t.Fatal(err)
	}
	calls := fake.Calls()
	if len(calls) != 2 || calls[0].Path != "/usr/bin/dpkg" || !slices.Contains(calls[0].Args, "--configure") {
		t.Errorf("got %v, want dpkg --configure and then puppet", calls)
	}
}

func TestRunWithoutEffectsWritesOnlyIntoItsScratch(t *testing.T) {
	p, fake := playing(t, load(t, "noop"))
	scratch := t.TempDir()
	o, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "small", Noop: true, Scratch: scratch})
	if err != nil || o.Kind != WouldChange {
		t.Errorf("got %v, %v; want would change", o.Kind, err)
	}
	root := filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(p.Paths.State))))
	if entries, _ := os.ReadDir(root); len(entries) != 0 {
		t.Errorf("got %v in the node's tree, want nothing", entries)
	}
	if args := fake.Calls()[0].Args; !slices.Contains(args, "--vardir="+filepath.Join(scratch, "vardir")) || !slices.Contains(args, "--noop") {
		t.Errorf("got %q, want --noop and its own vardir", args)
	}
}

func TestEnvironmentIsExplicit(t *testing.T) {
	t.Setenv("FACTER_leak", "yes")
	p, fake := playing(t, load(t, "unchanged"))
	if _, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "small", DpkgWait: 7 * time.Second}); err != nil {
		t.Fatal(err)
	}
	c := fake.Calls()[0]
	for _, want := range []string{"HOME=/root", "LANG=C.UTF-8"} {
		if !slices.Contains(c.Env, want) {
			t.Errorf("got %q, want %s in it", c.Env, want)
		}
	}
	if len(c.Env) != 6 {
		t.Errorf("got %q, want six variables", c.Env)
	}
	conf, err := os.ReadFile(filepath.Join(p.Paths.State, "apt.conf"))
	if err != nil || !strings.Contains(string(conf), `DPkg::Lock::Timeout "7";`) {
		t.Errorf("apt.conf: got %q, %v", conf, err)
	}
}

func TestKilledAndLateRunsAreOutcomes(t *testing.T) {
	for want, cause := range map[Kind]error{
		Killed:   &command.SignalError{Path: "/usr/bin/puppet", Signal: syscall.SIGKILL},
		TimedOut: &command.TimeoutError{Path: "/usr/bin/puppet", After: time.Minute},
	} {
		fake := &command.Fake{Script: func(command.Cmd) (command.Result, error) {
			return command.Result{ExitCode: -1, Stdout: []byte("Notice: /Stage[main]/Main/Exec[slow]/returns: still here\n")}, cause
		}}
		p := Puppet{Runner: fake, Binary: "/usr/bin/puppet", Paths: testPaths(t)}
		o, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "c"})
		if err != nil || o.Kind != want || o.Message == "" {
			t.Errorf("%v: got %v (%s), %v", want, o.Kind, o.Message, err)
		}
		if want == TimedOut && !strings.Contains(o.Message, "Exec[slow]: returns: still here") {
			t.Errorf("got %q, want Puppet's last words in it", o.Message)
		}
	}
	for _, none := range []error{context.Canceled, &command.StartError{Path: "/usr/bin/puppet", Err: os.ErrPermission}} {
		fake := &command.Fake{Script: func(command.Cmd) (command.Result, error) { return command.Result{ExitCode: -1}, none }}
		p := Puppet{Runner: fake, Binary: "/usr/bin/puppet", Paths: testPaths(t)}
		if _, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "c"}); !errors.Is(err, none) {
			t.Errorf("got %v, want %v", err, none)
		}
	}
}

func TestFindPrefersTheVendorsPackage(t *testing.T) {
	paths := testPaths(t)
	if _, err := Find(command.Exec{}, paths); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("got %v, want ErrNotInstalled", err)
	}
	script := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const body = "\nbegin\n  require 'puppet/util/command_line'\n  Puppet::Util::CommandLine.new.execute\nend\n"
	find := func(binary, ruby string) {
		t.Helper()
		p, err := Find(command.Exec{}, paths)
		if err != nil || p.Binary != binary || p.Ruby != ruby {
			t.Errorf("got %s, %s, %v; want %s, %s", p.Binary, p.Ruby, err, binary, ruby)
		}
	}
	gem, debian, vendor := paths.Binaries[2], paths.Binaries[1], paths.Binaries[0]
	script(gem, "#!/usr/bin/ruby3.3\nload Gem.activate_bin_path('puppet', 'puppet', '>= 0')\n")
	find(gem, "")
	script(debian, "#!/usr/bin/ruby\n# frozen_string_literal: true\n"+body)
	find(debian, "/usr/bin/ruby")
	script(vendor, "#!/bin/sh\nunset GEM_HOME\nexec /opt/puppetlabs/puppet/bin/puppet \"$@\"\n")
	find(vendor, "")
	script(filepath.Join(filepath.Dir(vendor), "../puppet/bin/puppet"), "#!/opt/puppetlabs/puppet/bin/ruby"+body)
	find(vendor, "/opt/puppetlabs/puppet/bin/ruby")
}

func TestManifestWithVariablesIsRefusedWithItsLine(t *testing.T) {
	release := t.TempDir()
	if err := os.MkdirAll(filepath.Join(release, "puppet"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(release, "puppet/environment.conf"), []byte("\nmanifest = $codedir/x.pp\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p, _ := playing(t, load(t, "unchanged"))
	_, err := p.Apply(t.Context(), Run{Release: release, Commit: "c"})
	if err == nil || !strings.HasPrefix(err.Error(), "puppet/environment.conf:2: ") {
		t.Errorf("got %v, want file and line", err)
	}
}

// loader writes an executable that stands for Ruby: it gets -e and the script, and then the arguments.
func loader(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ruby")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// plainPuppet is a puppet that leaves a mark when it is run by itself.
func plainPuppet(t *testing.T, ruby string) (Puppet, string) {
	t.Helper()
	dir := t.TempDir()
	mark := filepath.Join(dir, "mark")
	path := filepath.Join(dir, "puppet")
	text := fmt.Sprintf("#!/bin/sh\necho plain >%s\necho 'Error: plain run (file: /r/puppet/x.pp, line: 3)' >&2\nexit 1\n", mark)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return Puppet{Runner: command.Exec{}, Binary: path, Ruby: ruby, Paths: testPaths(t)}, mark
}

func TestPreloadedPuppetRunsTheSameCommand(t *testing.T) {
	got := filepath.Join(t.TempDir(), "arguments")
	ruby := loader(t, "cat >"+got+"\necho 'noise before'\necho '"+preloadMarker+"'\necho '"+preloadMarker+"' >&2\necho 'Error: loaded run (file: /r/puppet/x.pp, line: 3)' >&2\nexit 1")
	p, mark := plainPuppet(t, ruby)
	loaded := p.Preload(t.Context())
	var lines []string
	o, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "c", Preloaded: loaded,
		OnLine: func(l Line) { lines = append(lines, l.String()) }})
	if err != nil {
		t.Fatal(err)
	}
	if !o.Preloaded || o.Kind != CompileError || o.Message != "puppet/x.pp:3: loaded run" {
		t.Errorf("got preloaded %v, %v: %s", o.Preloaded, o.Kind, o.Message)
	}
	if len(lines) != 1 {
		t.Errorf("got %q, want only what came after the marker", lines)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("puppet was run a second time")
	}
	args, err := os.ReadFile(got)
	if err != nil || !strings.HasPrefix(string(args), `["`+p.Binary+`","apply","--detailed-exitcodes"`) {
		t.Errorf("got %s, %v; want puppet's own arguments", args, err)
	}
}

func TestUselessPreloadEndsInAPlainRun(t *testing.T) {
	for name, ruby := range map[string]string{
		"cannot be started":     "/nonexistent/ruby",
		"fails while loading":   loader(t, "echo 'cannot load such file -- puppet' >&2; exit 1"),
		"is killed":             loader(t, "kill -9 $$"),
		"ends without a marker": loader(t, "cat >/dev/null"),
	} {
		t.Run(name, func(t *testing.T) {
			p, mark := plainPuppet(t, ruby)
			o, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "c", Preloaded: p.Preload(t.Context())})
			if err != nil || o.Preloaded || o.Message != "puppet/x.pp:3: plain run" {
				t.Errorf("got %+v, %v; want a plain run", o, err)
			}
			if _, err := os.Stat(mark); err != nil {
				t.Error("puppet was not run")
			}
		})
	}
}

func TestPreloadedPuppetIsStoppedWhenItsTimeIsUp(t *testing.T) {
	p, _ := plainPuppet(t, loader(t, "cat >/dev/null\necho '"+preloadMarker+"'\nexec sleep 600"))
	o, err := p.Apply(t.Context(), Run{Release: "/r", Commit: "c", Timeout: 100 * time.Millisecond, Preloaded: p.Preload(t.Context())})
	if err != nil || o.Kind != TimedOut {
		t.Errorf("got %v, %v; want timed out", o.Kind, err)
	}
}

func TestUnusedPreloadLeavesNoProcess(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	p, _ := plainPuppet(t, loader(t, "echo $$ >"+pidFile+".new; mv "+pidFile+".new "+pidFile+"; exec cat >/dev/null"))
	l := p.Preload(t.Context())
	var pid int
	for deadline := time.Now().Add(10 * time.Second); pid == 0; {
		if data, err := os.ReadFile(pidFile); err == nil {
			fmt.Sscan(string(data), &pid)
		}
		if time.Now().After(deadline) {
			t.Fatal("the loader never started")
		}
		<-time.After(time.Millisecond)
	}
	l.Close()
	l.Close()
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d: got %v, want that it is gone", pid, err)
	}
	(*Preloaded)(nil).Close()
}
