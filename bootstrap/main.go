// Command understudy-bootstrap makes a freshly booted machine the node that its hostname says it is:
// hostname → role → a signed commit of the control repo → a real `puppet apply`.
//
// It promises ordered steps that are recorded as they finish (see Record), each of which can be killed at
// any point and done again; retries with growing pauses where trying again can help, and nowhere else; for
// every way to fail one line that says what, why and the next thing to do, and an exit code of its own; and
// a done-marker that is the last thing written. While it waits for the network, Ruby and Puppet are loaded.
//
// It refuses to guess: a hostname in no role, an unsigned commit, a configuration with an unknown key are
// errors. It knows nothing of the sidecar, which takes over once the marker is there.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/command"
	"understudy/bootstrap/config"
	"understudy/bootstrap/converge"
	"understudy/bootstrap/progress"
)

func main() {
	os.Exit(realMain())
}

func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return start(ctx, os.Args[1:], surroundings{
		stdout: os.Stdout, stderr: os.Stderr, log: newLogger(os.Stderr), layout: layoutUnder("/"), kernel: realKernel(),
		runner: command.Exec{}, notify: newNotifier(), at: func(string) {},
	})
}

// surroundings are what a test replaces.
type surroundings struct {
	stdout, stderr io.Writer
	log            *slog.Logger
	layout         layout
	kernel         kernel
	runner         command.Runner
	notify         notifier
	at             func(point string)
}

// options are the command line.
type options struct {
	config, role  string
	apply, result string // a commit, and where to write how it went
	noop, version bool
}

// start is the program. It returns the exit code.
func start(ctx context.Context, args []string, s surroundings) int {
	var o options
	flags := flag.NewFlagSet(programName, flag.ContinueOnError)
	flags.SetOutput(s.stderr)
	flags.StringVar(&o.config, "config", config.Path, "")
	flags.StringVar(&o.role, "role", "", "")
	flags.StringVar(&o.apply, "apply", "", "")
	flags.StringVar(&o.result, "result", "", "")
	flags.BoolVar(&o.noop, "noop", false, "")
	flags.BoolVar(&o.version, "version", false, "")
	flags.Usage = func() {}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		usage(s.stdout)
		return exitDone
	case err != nil:
		fmt.Fprintln(s.stderr, "see understudy-bootstrap -help")
		return exitUsage
	case flags.NArg() > 0:
		fmt.Fprintf(s.stderr, "unexpected argument %q; see understudy-bootstrap -help\n", flags.Arg(0))
		return exitUsage
	case o.version:
		fmt.Fprintln(s.stdout, programName, version())
		return exitDone
	case o.misused() != "":
		fmt.Fprintln(s.stderr, o.misused()+"; see understudy-bootstrap -help")
		return exitUsage
	case o.apply != "":
		return apply(ctx, o, s)
	}
	cfg, err := config.Load(o.config)
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			s.log.Error(line)
		}
		s.log.Error("the configuration cannot be used; next: correct "+o.config+" in the image", "code", exitUsage)
		s.notify.status("the configuration cannot be used: " + oneLine(err))
		return exitUsage
	}
	return bootstrap(ctx, cfg, o, s)
}

// bootstrap makes one attempt and reports how it ended.
func bootstrap(ctx context.Context, cfg config.Config, o options, s surroundings) (code int) {
	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	defer group.Wait() // never an error: the watcher only ever tells
	defer cancel()
	b, err := prepare(cfg, o, s, watchNetwork(ctx, &group))
	if err != nil {
		f := asFailure(err)
		s.log.Error(f.Error(), "code", f.code)
		return f.code
	}
	defer b.meta.close()
	defer func() {
		if err := b.removeScratch(); err != nil {
			s.log.Warn("something is left behind", "err", err)
		}
	}()
	if err := b.engine.save(replaceable); err != nil {
		s.log.Warn("this attempt is not counted", "err", err) // each step will say it, if it matters
	}
	b.preload(ctx)
	defer func() { b.loaded.Close() }()
	err = b.engine.run(ctx, b, b.steps())
	if err != nil && ctx.Err() == nil {
		err = asFailure(err)
	}
	b.engine.finish(err, b.usage(time.Since(began)))
	return b.report(err, time.Since(began))
}

// prepare makes everything an attempt needs. Except for the record of the attempt it changes nothing.
func prepare(cfg config.Config, o options, s surroundings, news <-chan struct{}) (*boot, error) {
	b := &boot{cfg: cfg, role: o.role, noop: o.noop, at: s.layout, kernel: s.kernel, runner: s.runner, meta: newMetadata(cfg.Metadata)}
	b.puppet, b.puppetErr = converge.Find(s.runner, s.layout.puppet)
	b.engine = &engine{base: s.log, log: s.log, notify: s.notify, wait: waiter{retry: cfg.Retry, news: news}, at: s.at}
	b.log = s.log
	machine, err := readID(s.layout.machineID)
	if err != nil {
		return nil, fmt.Errorf("read the machine-id: %w", err)
	}
	if b.engine.bootID, err = readID(s.layout.bootID); err != nil {
		return nil, fmt.Errorf("read the boot id: %w", err)
	}
	if o.noop {
		b.engine.record = progress.Record{Version: progress.Version, Attempt: 1, Machine: progress.Machine{MachineID: machine}}
		return b, b.useScratch()
	}
	record, aside, err := progress.Load(s.layout.record)
	if err != nil {
		return nil, err
	}
	if aside != "" {
		s.log.Warn("the record of earlier steps cannot be read; everything is done again", "kept", aside)
	}
	b.engine.record, b.engine.path = record, s.layout.record
	if b.engine.adopt(progress.Machine{MachineID: machine}) {
		s.log.Warn("the record of earlier steps is another machine's; starting over", "machine", machine)
	}
	b.failed = b.engine.record.Failed
	b.engine.record.Attempt++
	b.engine.relog()
	return b, nil
}

// useScratch moves everything that -noop would write into a directory of its own.
func (b *boot) useScratch() error {
	dir, err := os.MkdirTemp("", programName+"-noop-")
	if err != nil {
		return fmt.Errorf("make a scratch directory: %w", err)
	}
	b.scratch = dir
	b.at.repo, b.at.releases = filepath.Join(dir, "control.git"), filepath.Join(dir, "releases")
	return nil
}

// report says how the attempt ended, in one line, and returns the exit code.
func (b *boot) report(err error, took time.Duration) int {
	log := b.engine.log
	f, failed := errors.AsType[*failure](err)
	switch {
	case failed:
		log.Error(f.Error(), "phase", b.engine.record.Phase, "code", f.code, "took", took)
		b.engine.notify.status(fmt.Sprintf("failed (%d): %s", f.code, f.Error()))
		return f.code
	case err != nil:
		log.Warn("stopped; the next start goes on from here", "phase", b.engine.record.Phase, "reason", err, "took", took)
		return exitUnexpected
	case b.noop:
		log.Info("nothing was changed", "phase", progress.Done, "took", took)
		return exitDone
	}
	u := b.engine.record.Usage
	log.Info("done", "phase", progress.Done, "took", took, "max_rss", fmt.Sprintf("%dMB", u.Bootstrap.MaxRSS>>20))
	b.engine.notify.ready()
	b.engine.notify.status(fmt.Sprintf("done: %s is a %s node at %.12s, after %v", b.fact.Node, b.self.Name, b.engine.record.Commit, short(took)))
	return exitDone
}

// usage is what this attempt has cost: our own process, and Puppet's.
func (b *boot) usage(took time.Duration) progress.Usage {
	var self syscall.Rusage
	u := progress.Usage{Bootstrap: progress.Cost{Took: short(took).String()}}
	if syscall.Getrusage(syscall.RUSAGE_SELF, &self) == nil {
		u.Bootstrap.CPU = time.Duration(self.Utime.Nano() + self.Stime.Nano()).Seconds()
		u.Bootstrap.MaxRSS = self.Maxrss << 10 // getrusage(2): kilobytes
	}
	if o := b.outcome; o != nil {
		u.Puppet = &progress.Cost{Took: short(o.Took).String(), CPU: (o.UserCPU + o.SystemCPU).Seconds(), MaxRSS: o.MaxRSS, Preloaded: o.Preloaded}
	}
	return u
}

// version is the commit that the binary was built from, as the Go toolchain recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}
	return strings.TrimSpace(v + " " + info.GoVersion)
}
