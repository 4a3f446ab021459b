package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"understudy/bootstrap/command"
	"understudy/bootstrap/config"
	"understudy/bootstrap/control"
	"understudy/bootstrap/converge"
	"understudy/bootstrap/progress"
	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
)

// layout is where things lie on a node. Tests put it under a directory of their own.
type layout struct {
	state      string // /var/lib/understudy: what SaveMembership writes, and all below
	record     string
	done       string
	seed       string // exists on the first machine of a cluster; understudy.service looks for it
	handover   string // where a seed waits for the operator
	repo       string
	releases   string
	secrets    string // tmpfs
	hostname   string
	hosts      string
	machineID  string
	bootID     string
	factsPlain string // where Debian's facter looks for external facts
	factsAIO   string // where Puppet's and OpenVox' does
	puppet     converge.Paths
}

func layoutUnder(root string) layout {
	at := func(path string) string { return filepath.Join(root, path) }
	return layout{
		state: at("/var/lib/understudy"), record: at("/var/lib/understudy/bootstrap.json"), done: at("/var/lib/understudy/bootstrap.done"),
		seed: at("/var/lib/understudy/seed"), handover: ":" + strconv.Itoa(secrets.HandoverPort),
		repo: at("/var/lib/understudy/control.git"), releases: at("/var/lib/understudy/releases"),
		secrets: at("/run/understudy/secrets"), hostname: at("/etc/hostname"), hosts: at("/etc/hosts"),
		machineID: at("/etc/machine-id"), bootID: "/proc/sys/kernel/random/boot_id",
		factsPlain: at("/etc/facter/facts.d/understudy.json"), factsAIO: at("/etc/puppetlabs/facter/facts.d/understudy.json"),
		puppet: converge.PathsUnder(root),
	}
}

// kernel is what we ask of the running kernel.
type kernel struct {
	hostname    func() (string, error)
	setHostname func(string) error
}

func realKernel() kernel {
	return kernel{hostname: os.Hostname, setHostname: func(name string) error { return unix.Sethostname([]byte(name)) }}
}

// boot is one attempt to make this machine its node. Steps fill it from top to bottom.
type boot struct {
	cfg    config.Config
	role   string // forced by -role; empty: by hostname
	noop   bool
	at     layout
	kernel kernel
	runner command.Runner
	meta   metadata
	engine *engine
	log    *slog.Logger // of the present step

	puppet    converge.Puppet
	puppetErr error
	loaded    *converge.Preloaded // nil: a plain run

	failed *progress.Failed // how the attempt before this one ended; nil: well, or there was none
	pinned time.Time        // when nobody who answered had the pinned commit for the first time

	node    string // our hostname
	release string // directory of the exported tree
	roster  role.Roster
	self    role.Role
	fact    role.Fact
	scratch string // of -noop
	lent    bool   // -noop has laid out the secrets, which Puppet must read, and takes them away again
	outcome *converge.Outcome

	before   progress.Record // of -apply: the record of the first boot, as it is
	restarts bool            // -apply wants to know what the run does to units
}

// steps are the parts of a bootstrap, in their order.
func (b *boot) steps() []step {
	p := b.cfg.Patience
	all := []step{
		{name: progress.Hostname, doing: "looking for this machine's name", patience: p.Hostname, limit: b.oneTry(), do: hostname},
		{name: progress.Join, lasts: forIncarnation, doing: "asking a peer for the cluster's identity", patience: p.Hostname, limit: p.Join + b.oneTry(),
			intact: func(b *boot) bool { return exists(filepath.Join(b.at.state, "identity")) }, do: join},
		{name: progress.Control, lasts: forIncarnation, doing: "fetching the control repo", patience: p.Control, limit: b.fetchLimit(), intact: (*boot).hasRelease, do: fetch},
		{name: progress.Verify, lasts: forIncarnation, doing: "checking who signed the commit", limit: b.oneTry(), intact: (*boot).hasRelease, do: verify},
		{name: progress.Export, lasts: forIncarnation, doing: "writing the release", limit: b.fetchLimit(), intact: (*boot).hasRelease, do: export},
		{name: progress.Roles, doing: "looking up this node's role", limit: b.oneTry(), do: roles},
		{name: progress.Secrets, lasts: forBoot, doing: "opening secrets.age", limit: b.oneTry(),
			intact: func(b *boot) bool { return exists(b.at.secrets) }, do: openSecrets},
		{name: progress.Facts, doing: "writing the fact for Puppet", limit: b.oneTry(), do: facts},
		{name: progress.Needs, lasts: forIncarnation, doing: "asking for what other roles must provide", patience: p.Needs, pause: time.Second, limit: b.oneTry(), do: needs},
		{name: progress.Puppet, lasts: forIncarnation, doing: "running Puppet", limit: p.Puppet + p.PuppetLock + b.oneTry(), do: runPuppet},
		{name: progress.Done, doing: "writing the done-marker", limit: b.oneTry(), do: finish},
	}
	if b.noop {
		return all[:len(all)-1]
	}
	return all
}

// hasRelease says whether the release of the recorded commit is on the disk.
func (b *boot) hasRelease() bool {
	return b.engine.record.Commit != "" && exists(b.releaseDir())
}

func (b *boot) releaseDir() string { return filepath.Join(b.at.releases, b.engine.record.Commit) }

// repo opens the local copy of the control repo, for a fetch of one commit or, where pin is empty, of the newest. Nothing is touched yet.
func (b *boot) repo(pin string) (*control.Repo, error) {
	_, oldest, err := b.trust()
	if err != nil {
		return nil, err
	}
	return control.Open(b.at.repo, b.at.releases, control.Options{Log: b.log, Oldest: oldest, Pin: pin, Runner: b.runner})
}

// preload starts to load Puppet while other things are waited for, if there is a run to come.
func (b *boot) preload(ctx context.Context) {
	r := b.engine.record
	_, converged := r.Step(progress.Puppet)
	if b.puppetErr == nil && !b.noop && !(converged && r.Failed == nil && r.Done == nil) {
		b.loaded = b.puppet.Preload(ctx)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
