//go:build linux

// Package site runs one local cloud on this Linux machine: the network namespace, the
// DigitalOcean-compatible API with its metadata and name service, real machines under
// systemd-nspawn, an object store, a git remote, a mail relay, a package mirror, and the ports
// forwarded to the host's loopback. All of it lives inside the namespace but those ports; Clean removes what a
// killed cloud left, without needing it.
package site

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/command"
	"understudy/bootstrap/role"
	"understudy/sidecar/cloud/localcloud"
	"understudy/sidecar/cloud/localcloud/netns"
	"understudy/sidecar/cloud/localcloud/nspawn"
	"understudy/sidecar/cloud/localcloud/objectstore"
	"understudy/sidecar/image"
)

// Options of a local cloud. All but Forwards and CableWait are required.
type Options struct {
	Name      string        `json:"name"`  // see ValidName
	Dir       string        `json:"dir"`   // runtime state, removed by Clean
	Repo      string        `json:"repo"`  // checkout whose roles.yaml and puppet/ become the control repo
	Trees     []string      `json:"trees"` // the image, topmost first; the last is the base tree
	Self      string        `json:"self"`  // the understudy binary
	Forwards  []Forward     `json:"forwards,omitempty"`
	CableWait time.Duration `json:"cable_wait,omitempty"` // machines' networks come up so much later
}

// The cloud's addresses. The ranges after the first are those of documentation (RFC 5737) and a
// private one, all inside the namespace.
var (
	gateway  = netip.MustParseAddr("10.77.0.1")
	metadata = netip.MustParseAddr("169.254.169.254")
	links    = []netip.Prefix{
		netip.MustParsePrefix("10.77.0.1/16"), netip.MustParsePrefix("10.16.0.1/16"), netip.MustParsePrefix("169.254.169.254/32"),
		netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("203.0.113.1/24"),
	}
)

const (
	apiPort   = 8000
	gitPort   = 3000
	relayPort = 2525
)

var nameRE = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// ValidName refuses names that could not stand in paths and namespaces.
func ValidName(name string) error {
	if !nameRE.MatchString(name) {
		return fmt.Errorf("local cloud %q: a name has 1 to 31 lower case letters, digits and dashes, and begins with a letter", name)
	}
	return nil
}

// Namespace is the name of the network namespace of the cloud called name.
func Namespace(name string) string { return "understudy-" + name }

// Site is a running local cloud.
type Site struct {
	opt      Options
	log      *slog.Logger
	net      *netns.Namespace
	machines *nspawn.Backend
	cloud    *localcloud.Server
	roster   role.Roster
	keys     *keys
	remote   *remote
	objects  *objectstore.Store
	token    string
	started  time.Time
	account  *account
	watch    *watcher
}

// Run brings the cloud up and serves it until ctx ends; then it takes everything down again. After an
// error the state directory stays, with the log; Clean removes it.
func Run(ctx context.Context, log *slog.Logger, opt Options) (err error) {
	s := &Site{opt: opt, log: log, started: time.Now(), token: "local-" + randomHex(16)}
	if err := ValidName(opt.Name); err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	s.net, err = netns.Create(Namespace(opt.Name), links...)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.net.Close(), nspawn.Clean(opt.Name), netns.Remove(Namespace(opt.Name)))
		if err == nil { // otherwise the log in there is what somebody wants to read
			err = os.RemoveAll(opt.Dir)
		}
	}()
	s.machines, err = nspawn.New(nspawn.Options{
		Cloud: opt.Name, Dir: filepath.Join(opt.Dir, "machines"), Net: s.net, Self: opt.Self, Gateway: gateway, Log: log,
		Image:     func(string) ([]string, error) { return opt.Trees, nil },
		CableWait: opt.CableWait,
	})
	if err != nil {
		return err
	}
	defer func() {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if s.cloud != nil {
			err = errors.Join(err, s.cloud.Close(cctx))
		}
		err = errors.Join(err, s.machines.Close(cctx))
	}()
	o := s.cloudOptions()
	if err := o.Validate(); err != nil {
		return err
	}
	s.cloud = localcloud.New(log, s.machines, o)
	return s.serve(ctx)
}

// prepare reads what the user wrote and makes what the operator would: keys, bundle, first commit.
func (s *Site) prepare() error {
	path := filepath.Join(s.opt.Repo, "roles.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the roster: %w", err)
	}
	if s.roster, err = role.Parse("roles.yaml", data); err != nil {
		return err
	}
	s.keys, err = newKeys(filepath.Join(s.opt.Dir, "operator"), s.opt.Repo, s.roster.Cluster, s.roster.Domain, "digitalocean", s.token)
	if err != nil {
		return err
	}
	if s.remote, err = newRemote(filepath.Join(s.opt.Dir, "git", "control.git")); err != nil {
		return err
	}
	if s.objects, err = newObjects(filepath.Join(s.opt.Dir, "objects"), s.roster, s.keys.bundle.Ledger, s.log); err != nil {
		return err
	}
	tree, err := readTree(s.opt.Repo)
	if err != nil {
		return err
	}
	tree["secrets.age"] = s.keys.sealedFile()
	commit, err := s.remote.commit(tree, s.keys.operator, "The reference cluster")
	if err != nil {
		return err
	}
	s.log.Info("control repo is ready", "commit", commit, "files", len(tree))
	for name, text := range map[string][]byte{"roles.yaml": data, "secrets.age": s.keys.sealed} {
		if err := errors.Join(os.MkdirAll(s.path("checkout"), 0o755), os.WriteFile(filepath.Join(s.path("checkout"), name), text, 0o644)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(s.opt.Dir, "token"), []byte(s.token+"\n"), 0o600)
}

// imageID is the number by which the API knows the image: private images have no other name there.
const imageID = 100_000_001

// cloudOptions describe an account that has what roles.yaml speaks of: the region, the image, and the
// reserved addresses, which a user books before naming them.
func (s *Site) cloudOptions() localcloud.Options {
	o := localcloud.Defaults()
	o.Token = s.token
	o.InternalDomain = s.roster.Cluster + ".internal"
	o.Images = []localcloud.Image{{
		ID: imageID, Name: s.roster.Provider.Image, Distribution: "Debian", MinDisk: 10, SizeGB: 0.5, Created: s.started,
	}}
	// The cluster's region comes first: that is where its addresses are booked.
	o.Regions = append([]localcloud.Region{{Slug: s.roster.Provider.Region, Name: s.roster.Provider.Region}},
		slices.DeleteFunc(o.Regions, func(r localcloud.Region) bool { return r.Slug == s.roster.Provider.Region })...)
	for _, r := range s.roster.Roles {
		if r.Address != nil && r.Address.ReservedIP.IsValid() {
			o.Booked = append(o.Booked, r.Address.ReservedIP)
		}
	}
	o.ReservedIPLimit = max(o.ReservedIPLimit, len(o.Booked))
	o.Resolvers = []netip.Addr{gateway}
	o.Internal = func(name string) []netip.Addr { return s.cloud.PrivateAddrs(name) }
	return o
}

func apiURL() string { return "http://" + netip.AddrPortFrom(gateway, apiPort).String() + "/" }

// serve runs every server until ctx ends or one of them fails.
func (s *Site) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if err := s.inside(ctx, g); err != nil {
		return errors.Join(err, stop(g))
	}
	for _, f := range s.opt.Forwards {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.Listen)
		if err != nil {
			return errors.Join(fmt.Errorf("forward to %s: %w; choose another port", f.Target, err), stop(g))
		}
		fw := forwarder{log: s.log, target: f.Target, resolve: s.resolve, dial: s.net.Dial}
		g.Go(func() error { return fw.serve(ctx, l) })
	}
	s.account, s.watch = newAccount(s), newWatcher(s)
	if err := s.account.prepare(ctx); err != nil {
		return errors.Join(err, stop(g))
	}
	if err := s.serveControl(ctx, g); err != nil {
		return errors.Join(err, stop(g))
	}
	g.Go(func() error { return s.watch.run(ctx) })
	return g.Wait()
}

// stop ends a group whose start failed half-way.
func stop(g *errgroup.Group) error {
	g.Go(func() error { return context.Canceled })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// inside starts what listens within the namespace.
func (s *Site) inside(ctx context.Context, g *errgroup.Group) error {
	gitHandler, err := s.remote.handler(ctx, command.Exec{})
	if err != nil {
		return err
	}
	packages, err := newMirror(image.Mirror(s.opt.Trees[len(s.opt.Trees)-1]))
	if err != nil {
		return err
	}
	for _, h := range []struct {
		addr    netip.AddrPort
		handler http.Handler
	}{
		{netip.AddrPortFrom(gateway, apiPort), s.cloud.API()},
		{netip.AddrPortFrom(metadata, 80), s.cloud.Metadata()},
		{netip.AddrPortFrom(gateway, gitPort), gitHandler},
		{netip.AddrPortFrom(gateway, 80), packages},
		{netip.AddrPortFrom(gateway, ledgerPort), s.objects},
	} {
		l, err := s.net.Listen(ctx, h.addr.String())
		if err != nil {
			return err
		}
		g.Go(func() error { return serveHTTP(ctx, l, h.handler) })
	}
	if err := s.serveNames(ctx, g); err != nil {
		return err
	}
	l, err := s.net.Listen(ctx, netip.AddrPortFrom(gateway, relayPort).String())
	if err != nil {
		return err
	}
	r := &relay{dir: filepath.Join(s.opt.Dir, "relay"), log: s.log}
	g.Go(func() error { return r.serve(ctx, l) })
	return nil
}

// serveHTTP serves until ctx ends, then lets running requests finish for a moment.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	done := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		done <- srv.Shutdown(sctx)
	})
	err := srv.Serve(l)
	if !stop() { // the shutdown runs: wait for it
		if err := <-done; errors.Is(err, context.DeadlineExceeded) {
			return srv.Close()
		}
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Clean removes everything a cloud of that name has or had: processes, control groups, namespace,
// state. It works without the cloud's process and may be repeated.
func Clean(name, dir string) error {
	if err := ValidName(name); err != nil {
		return err
	}
	return errors.Join(nspawn.Clean(name), netns.Remove(Namespace(name)), os.RemoveAll(dir))
}
