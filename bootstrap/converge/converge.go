// Package converge runs `puppet apply` on an exported release and says how it went.
//
// It promises: one run at a time (a lock of our own, because `puppet apply` takes none); an outcome read
// from the exit code *and* from the summary that this very run wrote, never from one that an earlier run
// left behind; the operator's `puppet agent --disable` honoured, which `puppet apply` ignores; an explicit
// environment; no second start of Ruby just to ask Puppet where its files are (0.7 s): the two files we
// read are named on the command line, which works alike with Debian's, OpenVox' and Puppet's packages.
//
// It refuses a release whose environment.conf it cannot follow. It never changes the release.
//
// Puppet's exit codes: puppet-apply(8), --detailed-exitcodes.
package converge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"understudy/bootstrap/command"
)

// Puppet is an installed Puppet and the files that its runs use. Find makes one.
type Puppet struct {
	Runner command.Runner
	// Binary is the puppet program, an absolute path.
	Binary string
	// Ruby interprets Binary and can load it ahead of time. Empty: unknown, so every run is a plain one.
	Ruby string
	// Paths are the files around a run.
	Paths Paths
}

// Paths are the files around a run; DefaultPaths and PathsUnder fill them.
type Paths struct {
	// Binaries are the places where puppet may be, the first one found is used.
	Binaries []string
	// State is the directory that keeps the last run's summary and report.
	State string
	// Lock is the file that is locked (flock(2)) during a run.
	Lock string
	// Disabled are the files by which `puppet agent --disable` says no, one for each packaging.
	Disabled []string
	// DpkgUpdates is the directory in which dpkg keeps what it had begun when it was interrupted.
	DpkgUpdates string
	// Proc is where the kernel lists processes.
	Proc string
}

// DefaultPaths are the paths on a node.
func DefaultPaths() Paths { return PathsUnder("/") }

// PathsUnder are the paths on a node whose root directory is root. /proc is always the running system's.
func PathsUnder(root string) Paths {
	under := func(paths ...string) []string {
		for i, p := range paths {
			paths[i] = filepath.Join(root, p)
		}
		return paths
	}
	return Paths{
		Binaries: under("/opt/puppetlabs/bin/puppet", "/usr/bin/puppet", "/usr/local/bin/puppet"),
		State:    filepath.Join(root, "/var/lib/understudy/puppet"),
		Lock:     filepath.Join(root, "/run/understudy/puppet.lock"),
		Disabled: under("/var/cache/puppet/state/agent_disabled.lock", "/var/lib/puppet/state/agent_disabled.lock",
			"/opt/puppetlabs/puppet/cache/state/agent_disabled.lock"),
		DpkgUpdates: filepath.Join(root, "/var/lib/dpkg/updates"),
		Proc:        "/proc",
	}
}

// Run is one run of Puppet. Release and Commit are required.
type Run struct {
	// Release is the exported tree; its directory `puppet` is the environment.
	Release string
	// Commit is the hash that Release was exported from. Puppet's reports carry it as their version.
	Commit string
	// Noop only reports what would change. It needs Scratch and touches nothing outside of it.
	Noop bool
	// Scratch is a directory of the caller's for all that a Noop run writes.
	Scratch string
	// Timeout ends the run. Zero: 30 minutes.
	Timeout time.Duration
	// LockWait is how long to wait for another run to end. Zero: not at all.
	LockWait time.Duration
	// DpkgWait is how long apt waits for dpkg's lock inside the run. Zero: 2 minutes.
	DpkgWait time.Duration
	// Restarts makes the Outcome say what the run does to units. Puppet then leaves a copy of the catalog for us.
	Restarts bool
	// OnLine is told what Puppet says, as it says it. Nil: nobody is told.
	OnLine func(Line)
	// Preloaded is a Puppet that has been loaded meanwhile. Nil: a plain run. It is used up by the run,
	// and the run is a plain one where it turns out not to be usable.
	Preloaded *Preloaded
}

// DefaultTimeout is long: an apt mirror may be slow, and dpkg must not be killed lightly.
const DefaultTimeout = 30 * time.Minute

const (
	defaultDpkgWait = 2 * time.Minute
	grace           = 30 * time.Second // dpkg and the package's scripts may need it to stop in order
)

// Apply runs Puppet and returns the outcome. Every run that was started has one, also a failed one.
//
// An error means that Puppet was not run to an end of its own and there is nothing to judge:
// *LockedError, *DisabledError, *command.StartError (nothing was changed), or the context's error (any
// part of the catalog may have been applied). Bad releases give an error too.
func (p Puppet) Apply(ctx context.Context, r Run) (Outcome, error) {
	if r.Preloaded != nil {
		defer r.Preloaded.Close()
	}
	files, err := p.files(r)
	if err != nil {
		return Outcome{}, err
	}
	args, ownVersion, err := arguments(r, files)
	if err != nil {
		return Outcome{}, err
	}
	if !r.Noop {
		unlock, err := p.prepare(ctx, r)
		if err != nil {
			return Outcome{}, err
		}
		defer unlock()
	}
	if err := files.clear(r); err != nil {
		return Outcome{}, err
	}
	heard := newEar(r)
	began := time.Now()
	res, preloaded, err := p.start(ctx, r, args, files, heard)
	if err != nil && !judged(err) {
		return Outcome{}, err
	}
	o := Outcome{ExitCode: res.ExitCode, Took: time.Since(began), Preloaded: preloaded,
		UserCPU: res.UserCPU, SystemCPU: res.SystemCPU, MaxRSS: res.MaxRSS}
	o.Summary, o.summaryErr = readSummary(files.summary, ownVersion)
	told := readReport(files.report)
	o.Failures = told.failures(r.Release)
	if r.Restarts {
		c, err := files.takeCatalog()
		if err != nil {
			return Outcome{}, fmt.Errorf("remove the copy of the catalog: %w", err)
		}
		o.Restarts = told.restarts(c)
	}
	o.judge(r, err, heard)
	return o, nil
}

// judged errors end a run in a way that is an outcome.
func judged(err error) bool {
	if _, late := errors.AsType[*command.TimeoutError](err); late {
		return true
	}
	_, killed := errors.AsType[*command.SignalError](err)
	return killed
}

// prepare does what a real run needs before it: permission, the lock, a dpkg that is in order.
func (p Puppet) prepare(ctx context.Context, r Run) (unlock func(), err error) {
	if err := p.enabled(); err != nil {
		return nil, err
	}
	unlock, err = p.lock(ctx, r.LockWait)
	if err != nil {
		return nil, err
	}
	if err := p.repairDpkg(ctx, r); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// runFiles are the files that one run writes for us.
type runFiles struct {
	dir, summary, report, aptConf string
	catalogs                      string // of a run with Restarts: Puppet's client_datadir
}

func (p Puppet) files(r Run) (runFiles, error) {
	switch {
	case !filepath.IsAbs(r.Release) || r.Commit == "":
		return runFiles{}, fmt.Errorf("puppet run of release %q, commit %q: an absolute path and a commit are needed", r.Release, r.Commit)
	case r.Noop && !filepath.IsAbs(r.Scratch):
		return runFiles{}, errors.New("puppet run without effects: a scratch directory is needed")
	}
	dir := p.Paths.State
	if r.Noop {
		dir = filepath.Join(r.Scratch, "state")
	}
	return runFiles{dir, filepath.Join(dir, "last_run_summary.yaml"), filepath.Join(dir, "last_run_report.yaml"),
		filepath.Join(dir, "apt.conf"), filepath.Join(dir, "catalogs")}, nil
}

// clear removes what an earlier run left, so that whatever is there afterwards is this run's. This is
// stronger than comparing times: at first boot the clock may be set in the middle of the run.
func (f runFiles) clear(r Run) error {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return fmt.Errorf("make room for puppet's summary: %w", err)
	}
	for _, old := range []string{f.summary, f.report} {
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the last run's summary: %w", err)
		}
	}
	if err := os.RemoveAll(f.catalogs); err != nil {
		return fmt.Errorf("remove the last run's catalog: %w", err)
	}
	wait := r.DpkgWait
	if wait == 0 {
		wait = defaultDpkgWait
	}
	conf := fmt.Sprintf("// Written before each run: apt waits so many seconds for dpkg's lock (apt.conf(5)).\nDPkg::Lock::Timeout \"%d\";\n",
		int(wait.Seconds()))
	if err := os.WriteFile(f.aptConf, []byte(conf), 0o644); err != nil {
		return fmt.Errorf("tell apt to wait for dpkg's lock: %w", err)
	}
	return nil
}

// arguments of puppet after its name. version is what Puppet's reports will carry, empty when the release
// decides that itself.
func arguments(r Run, f runFiles) (args []string, version string, err error) {
	env, err := readEnvironment(filepath.Join(r.Release, Environment))
	if err != nil {
		return nil, "", err
	}
	args = []string{"apply", "--detailed-exitcodes",
		"--environmentpath=" + r.Release, "--environment=" + Environment,
		"--config_version=/bin/echo " + r.Commit,
		"--lastrunfile=" + f.summary, "--lastrunreport=" + f.report,
		"--logdest=console", "--color=false"}
	if r.Restarts {
		args = append(args, "--catalog_cache_terminus=json", "--client_datadir="+f.catalogs)
	}
	if r.Noop {
		args = append(args, "--noop", "--show_diff")
		for _, setting := range []string{"vardir", "rundir", "logdir", "ssldir", "publicdir"} {
			args = append(args, "--"+setting+"="+filepath.Join(r.Scratch, setting))
		}
	}
	version = r.Commit
	if env.ownVersion {
		version = ""
	}
	return append(args, env.manifest), version, nil
}

// start runs Puppet, preloaded when that is possible. The bool says whether it was.
func (p Puppet) start(ctx context.Context, r Run, args []string, f runFiles, heard *ear) (command.Result, bool, error) {
	timeout := r.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	if r.Preloaded != nil && !r.Noop && r.Preloaded.binary == p.Binary {
		input, err := json.Marshal(append([]string{p.Binary}, args...))
		if err != nil {
			return command.Result{}, false, fmt.Errorf("hand puppet its arguments: %w", err)
		}
		res, ran, err := r.Preloaded.apply(ctx, input, timeout, heard.line)
		if ran {
			return res, true, err
		}
	}
	res, err := p.Runner.Run(ctx, command.Cmd{Path: p.Binary, Args: args, Env: environ(f.aptConf), Timeout: timeout,
		Grace: grace, MaxOutput: keptOutput, OnLine: heard.line})
	return res, false, err
}

// keptOutput is small because what matters is heard line by line.
const keptOutput = 4 << 10

// environ is the whole environment of a run. HOME decides where Puppet looks for its configuration when
// it is not root; a UTF-8 locale is needed to read manifests that are not ASCII.
func environ(aptConf string) []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/puppetlabs/bin",
		"HOME=/root", "USER=root", "LOGNAME=root", "LANG=C.UTF-8", "APT_CONFIG=" + aptConf}
}
