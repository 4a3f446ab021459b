package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
	"understudy/sidecar/address"
	"understudy/sidecar/boottime"
	"understudy/sidecar/config"
	"understudy/sidecar/decide"
	"understudy/sidecar/reconcile"
)

// leaveWithin is how long a stop waits for the duties to move. The unit's TimeoutStopSec= must be above it.
const leaveWithin = 15 * time.Second

func runCommand() *cobra.Command {
	var path string
	var tidy bool
	cmd := &cobra.Command{
		Use: "run", Short: "Be the sidecar: keep the cluster whole from this node", Args: cobra.NoArgs,
		Long: `Be this node's sidecar: hear the other members, hold or take over the role's duty, move its
address, publish the cluster's names. systemd starts it (understudy.service); it stops, on SIGTERM, after
its duties have moved to another node, and within ` + leaveWithin.String() + `.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			log := newRunLog(os.Stderr, cfg.LogLevel)
			n, err := newNode(cfg, log)
			if err != nil {
				return err
			}
			if tidy {
				return n.tidy()
			}
			return n.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&path, "config", config.Path, "this machine's own settings")
	cmd.Flags().BoolVar(&tidy, "tidy", false, "close every gate and take link addresses away, then end: for after a sidecar that was killed")
	return cmd
}

// newRunLog writes lines; under systemd the journal knows the time already.
func newRunLog(to *os.File, level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(to, o))
}

// node is this machine as a member of the cluster, with what it has been told.
type node struct {
	cfg    config.Config
	log    *slog.Logger
	roster role.Roster
	role   role.Role
	bundle secrets.Bundle
	policy decide.Policy
	files  map[string][]byte // what the release had of that, by name; empty where the configuration names other files
}

// newNode reads what stands in files. It reaches nothing outside the machine.
func newNode(cfg config.Config, log *slog.Logger) (*node, error) {
	roster, err := cfg.ReadRoster()
	if err != nil {
		return nil, err
	}
	n := &node{cfg: cfg, log: log, roster: roster}
	if n.role, err = roster.ForHost(cfg.Node); err != nil {
		return nil, err
	}
	if n.policy, err = decide.New(cfg.Node, roster); err != nil {
		return nil, err
	}
	if n.bundle, err = cfg.ReadSecrets(); err != nil {
		return nil, err
	}
	n.files, err = cfg.ReadFiles()
	return n, err
}

// specs are the addresses that may come to this machine. The anchor is not known without the metadata service.
func (n *node) specs(me self) []address.Spec {
	a := n.role.Address
	if a == nil {
		return nil
	}
	s := address.Spec{Role: n.role.Name, Link: a.VIP, Interface: a.Interface}
	if n.cfg.AddressInterface != "" {
		s.Interface = n.cfg.AddressInterface
	}
	if a.ReservedIP.IsValid() {
		s.Anchor = me.anchor
	}
	return []address.Spec{s}
}

// tidyPatience is how long tidying waits for the metadata service: whoever stops a node may have stopped its network already.
const tidyPatience = 2 * time.Second

// tidy makes sure that this machine answers on no role's address.
func (n *node) tidy() error {
	ctx, cancel := context.WithTimeout(context.Background(), tidyPatience)
	defer cancel()
	me, err := n.identify(ctx)
	if err != nil {
		n.log.Warn("the anchor address is not known, its gate closes by itself", "err", err)
	}
	return address.Tidy(n.log, n.specs(me))
}

// run is the sidecar from start to end.
func (n *node) run(ctx context.Context) (err error) {
	if err := os.MkdirAll(n.cfg.State, 0o755); err != nil {
		return err
	}
	if err := n.writeSecretFiles(); err != nil {
		return err
	}
	// First of all, because only one sidecar of a node can have it: a second one must not touch the gates of the first.
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", n.cfg.Listen.Beats)
	if err != nil {
		return fmt.Errorf("listen for beats: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	me, err := n.identify(ctx)
	if ctx.Err() != nil {
		return nil // told to stop while waiting
	}
	if err != nil {
		return err
	}
	addresses, err := address.Open(n.log, n.specs(me))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, addresses.Close()) }()
	ctx, restart := context.WithCancel(ctx)
	defer restart()

	// What the loop needs to give up its duties must outlive the order to stop.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, work := errgroup.WithContext(work)
	p := &parts{node: n, me: me, addresses: addresses, conn: conn, restart: restart}
	world, err := p.assemble(work, g)
	if err != nil {
		stop()
		return errors.Join(err, g.Wait())
	}
	loop, err := reconcile.New(reconcile.Config{
		Policy: n.policy, Next: decide.Next, Now: boottime.Now, Machine: me.machine, Tag: n.roster.Cluster, Private: me.private, Public: me.public, Boot: bootID(),
		MemoryFile: filepath.Join(n.cfg.State, "sidecar.json"), PeersFile: filepath.Join(n.cfg.State, "peers.json"),
		Peers: n.cfg.Peers, Port: p.port, LeaveWithin: leaveWithin, Log: n.log,
	}, world)
	if err == nil {
		p.loop, p.snapshot = loop, loop.Snapshot
		err = p.serve(work, g, loop)
	}
	if err != nil {
		stop()
		return errors.Join(err, g.Wait())
	}
	n.log.Info("sidecar starts", "node", n.cfg.Node, "role", n.role.Name, "machine", me.machine, "version", version())
	g.Go(func() error {
		defer stop() // the parts end after the loop
		err := loop.Run(ctx)
		_ = notify("STOPPING=1") // for `systemctl status` only
		return err
	})
	return g.Wait()
}

// writeSecretFiles writes the files that the role's services read, which a reboot takes away, where they are missing.
func (n *node) writeSecretFiles() error {
	const dir = "/run/understudy/secrets"
	if len(n.bundle.Files) == 0 {
		return nil
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	return n.bundle.WriteFiles(dir, secrets.GroupCommon, n.role.Name)
}

// notify tells the service manager, if there is one.
func notify(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}

// bootID tells this boot of the machine from others (random(4)).
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Sprintf("unknown: %v", err) // differs from every real one, so the boot counts as fresh
	}
	return strings.TrimSpace(string(id))
}
