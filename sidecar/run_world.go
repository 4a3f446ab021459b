package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/command"
	"understudy/bootstrap/role"
	"understudy/sidecar/address"
	"understudy/sidecar/cloud"
	"understudy/sidecar/cloud/digitalocean"
	"understudy/sidecar/cluster"
	"understudy/sidecar/config"
	"understudy/sidecar/decide"
	"understudy/sidecar/dns"
	"understudy/sidecar/keepalive"
	"understudy/sidecar/mailjournal"
	"understudy/sidecar/names"
	"understudy/sidecar/peerlink"
	"understudy/sidecar/reconcile"
	"understudy/sidecar/units"
	"understudy/sidecar/wallclock"
)

// parts are the sidecar's adapters to the world outside, on their way to becoming a reconcile.World.
type parts struct {
	*node
	me        self
	addresses *address.Addresses
	conn      net.PacketConn // for beats
	provider  cloud.Provider // nil: there is none
	beats     func() keepalive.Stats
	port      uint16 // of everybody's beats
	book      *book  // nil: there is no ledger
	clock     wallclock.Clock
	loop      *reconcile.Loop // set before it runs, with its Snapshot
	snapshot  func() (decide.Policy, decide.View, decide.Decision, time.Time)
	joinPort  uint16 // of everybody
	links     *peerlink.Links
	dataPort  uint16 // of everybody; zero: there are no streams
	journals  *journals
	data      *roleData    // nil: this node's role has none
	puppet    *puppet      // nil: no control repo is followed
	restart   func()       // ends this sidecar in order
	control   http.Handler // of this node's copy of the control repo
}

// assemble makes the world that this node's configuration describes. Whatever has to run runs in g until ctx ends.
func (p *parts) assemble(ctx context.Context, g *errgroup.Group) (reconcile.World, error) {
	mesh, err := p.mesh(ctx, g)
	if err != nil {
		return reconcile.World{}, err
	}
	g.Go(func() error { return p.addresses.Run(ctx) })
	w := reconcile.World{Mesh: mesh, Addresses: p.addresses, Progress: p.progress, Clock: p.clock.Ahead, Notify: notify}
	bus := &units.Systemd{}
	g.Go(func() error { <-ctx.Done(); return bus.Close() })
	jobs := units.New(p.log, bus, units.Timeouts{})
	if p.journals, err = p.newJournals(jobs); err != nil {
		return reconcile.World{}, err
	}
	if p.data, err = p.newData(jobs); err != nil {
		return reconcile.World{}, err
	}
	if len(p.role.PrimaryUnits) > 0 {
		w.Units = primaryUnits{jobs, p.role, p.data, p.journals.service}
	}
	if p.puppet, err = p.newPuppet(bus); err != nil {
		return reconcile.World{}, err
	}
	if w.Restart = p.restart; p.puppet != nil {
		w.Puppet = p.puppet
	}
	h := newDutyHealth(ctx, g, p.log, p.role, jobs)
	w.Health, w.Duty = h.result, h.duty
	if p.data != nil {
		w.Data = p.data
		w.Duty = func(acts bool) {
			h.duty(acts)
			p.data.keeper.Poke()
		}
	}
	if len(p.role.Drain) > 0 {
		w.Drain = p.drain
	}
	if p.cfg.Metadata != "" {
		w.Here = p.here
		g.Go(func() error { return p.keepMetadata(ctx) })
	}
	if w.Provider, err = p.hire(); err != nil {
		return reconcile.World{}, err
	}
	if p.book, err = p.ledger(); err != nil {
		return reconcile.World{}, err
	}
	if p.book != nil { // an interface that holds nothing is not nil
		w.Ledger = p.book
	}
	if w.Provider != nil && w.Ledger != nil {
		w.Hire = p.hiring
	}
	if w.Provider != nil {
		if w.Probe, err = p.prober(); err != nil {
			return reconcile.World{}, err
		}
	}
	if w.Zones, err = p.zones(); err != nil {
		return reconcile.World{}, err
	}
	if w.Names, err = p.names(ctx, g); err != nil {
		return reconcile.World{}, err
	}
	return w, nil
}

// mesh begins to send beats and to hear them.
func (p *parts) mesh(ctx context.Context, g *errgroup.Group) (*keepalive.Mesh, error) {
	at, ok := p.conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		panic(fmt.Sprintf("a UDP socket with the address %v", p.conn.LocalAddr()))
	}
	p.port = uint16(at.Port)
	roles := map[string]string{}
	for _, r := range p.roster.Roles {
		for _, node := range r.Nodes {
			roles[node] = r.Name
		}
	}
	mesh, err := keepalive.New(keepalive.Config{
		Self: p.cfg.Node, Key: p.bundle.ClusterKey, Beat: p.roster.Timings.Beat, MissedBeats: p.roster.Timings.MissedBeats, Roles: roles, Log: p.log,
	}, p.conn)
	if err != nil {
		return nil, err
	}
	g.Go(func() error { return mesh.Run(ctx) })
	p.beats = mesh.Stats
	return mesh, nil
}

// progress is how far bootstrap has come. Whoever names a roster by hand has done its work himself.
func (p *parts) progress() (cluster.Phase, string, error) {
	r, err := p.cfg.Release()
	switch {
	case err == nil:
		return cluster.Applied, r.Commit, nil
	case errors.Is(err, config.ErrNoRelease) && p.cfg.Roster != "":
		return cluster.Applied, "", nil
	case errors.Is(err, config.ErrNoRelease):
		return cluster.Booting, "", nil
	}
	return 0, "", err
}

// drainTimeout bounds the program that tells a role's services to finish.
const drainTimeout = 5 * time.Second

func (p *parts) drain(ctx context.Context, _ string) error {
	argv := p.role.Drain
	r, err := command.Exec{}.Run(ctx, command.Cmd{Path: argv[0], Args: argv[1:], Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}, Timeout: drainTimeout})
	switch {
	case err != nil:
		return fmt.Errorf("run %s: %w", argv[0], err)
	case r.ExitCode != 0:
		return fmt.Errorf("%s: exit code %d: %.200s", argv[0], r.ExitCode, r.Stderr)
	}
	return nil
}

// primaryUnits are the units of the one role that this node plays, behind its data and its mail journal if it has them.
type primaryUnits struct {
	jobs    *units.Units
	role    role.Role
	data    *roleData            // nil: none
	journal *mailjournal.Service // nil: none
}

// Start keeps units that do not run yet down for as long as this node may be a mirror, whose data come from elsewhere, and for as long as
// the journal cannot run: mail would be taken that one machine has.
func (u primaryUnits) Start(ctx context.Context, name string, epoch uint64) error {
	if u.data != nil {
		if err := u.data.keeper.Begin(epoch); err != nil {
			return fmt.Errorf("nothing is written without the data's consent: %w", err)
		}
	}
	if u.journal != nil {
		if err := u.journal.Start(ctx, epoch); err != nil {
			return fmt.Errorf("no mail is taken without its journal: %w", err)
		}
	}
	return u.jobs.Start(ctx, name, u.role.PrimaryUnits)
}

func (u primaryUnits) Stop(ctx context.Context, name string) error {
	if err := u.jobs.Stop(ctx, name, u.role.PrimaryUnits); err != nil || u.journal == nil {
		return err
	}
	return u.journal.Stop()
}

func (u primaryUnits) State(ctx context.Context, _ string) (decide.UnitReading, error) {
	s, err := u.jobs.State(ctx, u.role.PrimaryUnits)
	return decide.UnitReading{Running: s.Running, All: s.All && (u.journal == nil || u.journal.Serves())}, err
}

// hire makes the provider's client, if the node has a token for it.
func (p *parts) hire() (reconcile.Provider, error) {
	token := p.bundle.Provider["digitalocean"]
	if token.IsZero() {
		if a := p.role.Address; a != nil && a.ReservedIP.IsValid() {
			p.log.Warn("there is no token for a provider that this program knows: the reserved address is not moved", "provider", p.roster.Provider.Kind)
		}
		return nil, nil
	}
	client, err := digitalocean.New(digitalocean.Config{Endpoint: p.cfg.Provider.Endpoint, Token: token, Tag: p.roster.Cluster, Now: p.clock.Now, Heard: p.hear("the provider")})
	if err != nil {
		return nil, err
	}
	p.provider = client
	return client, nil
}

// zones makes a writer for each place where names are published.
func (p *parts) zones() (map[string]reconcile.Zone, error) {
	all := map[string]reconcile.Zone{}
	for _, d := range p.roster.DNS {
		key := decide.ZoneKey(d)
		own := ownNames(p.roster, d.Zone)
		var z dns.Zone
		var err error
		switch {
		case d.Kind == "rfc2136":
			server := d.Server
			if p.cfg.DNS.Server != "" {
				server = p.cfg.DNS.Server
			}
			k, ok := p.bundle.TSIG[d.Key]
			if !ok {
				p.log.Warn("names are not published there: secrets.age has no such TSIG key", "zone", key, "key", d.Key)
				continue
			}
			algorithm := d.Algorithm
			if algorithm == "" {
				algorithm = k.Algorithm
			}
			z, err = dns.NewRFC2136(dns.ServerConfig{
				Server: server, Zone: d.Zone, Own: own, Guard: guardName(p.roster.Domain, d.Zone),
				Key: d.Key, Algorithm: algorithm, Secret: k.Secret, Now: p.clock.Now,
			})
		case p.provider == nil:
			p.log.Warn("names are not published there: there is no token for the provider", "zone", key)
			continue
		default:
			z, err = dns.NewRecords(dns.RecordsConfig{Records: p.provider.Records(d.Zone), Own: own})
		}
		if err != nil {
			return nil, fmt.Errorf("zone %s: %w", key, err)
		}
		all[key] = zone{z, p.hear("name server " + key)}
	}
	return all, nil
}

// zone is a dns.Zone in the loop's words.
type zone struct {
	dns.Zone
	heard func(time.Time)
}

func (z zone) Read(ctx context.Context) ([]cluster.Record, uint64, error) {
	r, err := z.Zone.Read(ctx)
	return r.Records, r.Epoch, z.timely(err)
}

func (z zone) Update(ctx context.Context, epoch uint64, own []string, want []cluster.Record) error {
	return z.timely(z.Zone.Update(ctx, dns.Change{Epoch: epoch, Own: own, Want: want}))
}

// timely takes the server's clock from an answer that refuses ours, so that the next try is signed by it.
func (z zone) timely(err error) error {
	if off, ok := errors.AsType[*dns.ClockError](err); ok {
		z.heard(off.Server)
	}
	return err
}

// hear takes a server's clock.
func (p *parts) hear(source string) func(time.Time) {
	return func(at time.Time) { p.clock.Hear(source, at) }
}

// guardName is where the zone keeps the epoch of its newest writer. Clusters whose domains lie in one zone have one each.
func guardName(domain, zone string) string {
	if domain == zone {
		return "_understudy"
	}
	return "_understudy." + strings.TrimSuffix(domain, "."+zone)
}

// names begins to answer for the cluster's own names on loopback.
func (p *parts) names(ctx context.Context, g *errgroup.Group) (func(map[string][]netip.Addr), error) {
	at := p.cfg.Listen.Names
	if at == "" {
		return nil, nil
	}
	udp, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", at)
	if err != nil {
		return nil, fmt.Errorf("answer for names: %w", err)
	}
	tcp, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("answer for names: %w", err), udp.Close())
	}
	s := names.New(p.roster.Cluster)
	g.Go(func() error { return s.Run(ctx, udp, tcp) })
	return s.Set, nil
}

// checked are the health checks of a node: as standby, and as primary.
func checked(r role.Role) (primary, standby role.Health) {
	if len(r.PrimaryUnits) > 0 || !r.StandbyHealth.IsZero() {
		return r.Health, r.StandbyHealth
	}
	return r.Health, r.Health // the same services run on both
}

// ownNames are the names that roles.yaml gives to roles, relative to a zone, which is the domain or a parent of it.
func ownNames(r role.Roster, zone string) []string {
	var own []string
	add := func(name string) {
		full := name + "." + r.Domain
		if name == "@" {
			full = r.Domain
		}
		if full == zone {
			own = append(own, "@")
		} else {
			own = append(own, strings.TrimSuffix(full, "."+zone))
		}
	}
	for _, role := range r.Roles {
		names := slices.Clone(role.Names)
		if a := role.Address; a != nil {
			names = append(names, a.Names...)
			if a.MX > 0 {
				names = append(names, "@")
			}
		}
		for _, name := range names {
			add(name)
		}
	}
	slices.Sort(own)
	return slices.Compact(own)
}
