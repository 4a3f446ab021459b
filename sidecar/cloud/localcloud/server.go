package localcloud

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Server is the cloud: it owns every record and answers the API, the metadata service and DNS. All methods may be
// called from any goroutine.
type Server struct {
	log     *slog.Logger
	backend Backend
	opt     Options
	api     http.Handler
	limiter limiter
	faults  *faults

	// work holds every goroutine the server has started; launch starts one, stop asks them all to end, and idle is
	// closed when the server is closed and none is left.
	work   errgroup.Group
	launch func(job func(ctx context.Context))
	stop   context.CancelFunc
	idle   chan struct{}

	mu       sync.Mutex
	closed   bool
	jobs     int
	lastID   int
	lastHost int
	droplets map[int]*droplet
	// gone are the droplets that were, newest last, for faults that still list them.
	gone    []*droplet
	actions []*action
	images  map[int]*image
	keys    map[int]*sshKey
	tags    map[string]*tag
	ips     map[netip.Addr]*reservedIP
	domains map[string]*domain
	vpcs    []vpc
}

// keepGone and keepActions bound what is remembered of the past.
const (
	keepGone    = 500
	keepActions = 20_000
)

// New makes a server with an empty account. The options must be valid (see Options.Validate); New panics if they are
// not. Close must be called in the end.
func New(log *slog.Logger, b Backend, o Options) *Server {
	if err := o.Validate(); err != nil {
		panic(fmt.Sprintf("localcloud: invalid options: %v", err))
	}
	s := &Server{
		log: log, backend: b, opt: o,
		limiter:  limiter{limit: o.Rate},
		faults:   newFaults(o.Seed),
		idle:     make(chan struct{}),
		lastID:   FirstID - 1,
		lastHost: firstHost - 1,
		droplets: map[int]*droplet{},
		images:   map[int]*image{},
		keys:     map[int]*sshKey{},
		tags:     map[string]*tag{},
		ips:      map[netip.Addr]*reservedIP{},
		domains:  map[string]*domain{},
		vpcs:     newVPCs(o, time.Now()),
	}
	for _, im := range o.Images {
		s.images[im.ID] = newCatalogueImage(im, o.Regions)
	}
	for _, a := range o.Booked {
		s.ips[a] = &reservedIP{addr: a, region: o.Regions[0]}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.launch = func(job func(context.Context)) {
		s.work.Go(func() error { job(ctx); return nil })
	}
	s.api = s.newAPI()
	return s
}

// Close refuses further requests, breaks off what is under way and waits for it to end, at most until ctx ends. It
// leaves the machines as they are. It may be called more than once.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		if s.jobs == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	s.stop()
	select {
	case <-s.idle:
		return s.work.Wait()
	case <-ctx.Done():
		return fmt.Errorf("wait for the cloud's actions to end: %w", context.Cause(ctx))
	}
}

// start runs job in a goroutine that Close waits for. The caller holds s.mu; once closed nothing is started.
func (s *Server) start(job func(ctx context.Context)) {
	if s.closed {
		return
	}
	s.jobs++
	s.launch(func(ctx context.Context) {
		defer s.jobDone()
		job(ctx)
	})
}

func (s *Server) jobDone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs--
	if s.closed && s.jobs == 0 {
		close(s.idle)
	}
}

// pause waits for d. It returns false when the server closes first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// newID returns a number that was never used. The caller holds s.mu.
func (s *Server) newID() int {
	s.lastID++
	return s.lastID
}

// MachineStatus is a machine and how it is now.
type MachineStatus struct {
	Machine
	// Status is DigitalOcean's word: new, active or off.
	Status string
	// Locked means that an action on the machine is under way.
	Locked bool
	// Reserved is the reserved address the machine holds; the zero Addr if none.
	Reserved netip.Addr
}

// Machines returns all machines in the order in which they were made.
func (s *Server) Machines() []MachineStatus {
	s.mu.Lock()
	all := make([]MachineStatus, 0, len(s.droplets))
	booted := map[int]bool{}
	for _, d := range s.sortedDroplets() {
		ip, _ := s.heldBy(d.machine.ID)
		all = append(all, MachineStatus{Machine: d.machine.clone(), Locked: d.pending != 0, Reserved: ip})
		booted[d.machine.ID] = d.booted
	}
	s.mu.Unlock()
	for i := range all {
		all[i].Status = s.status(all[i].ID, booted[all[i].ID])
	}
	return all
}

// MachineByAddr finds the machine that has a as its private, public or anchor address.
func (s *Server) MachineByAddr(a netip.Addr) (Machine, bool) {
	a = a.Unmap()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.droplets {
		if m := d.machine; a == m.Private || a == m.Public || a == m.Anchor {
			return m.clone(), true
		}
	}
	return Machine{}, false
}

// Reserved returns who holds each reserved address: a machine's ID, or 0 for nobody.
func (s *Server) Reserved() map[netip.Addr]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := make(map[netip.Addr]int, len(s.ips))
	for a, ip := range s.ips {
		held[a] = ip.holder
	}
	return held
}

// PrivateAddrs returns the private addresses of the machines with the given name, oldest first.
func (s *Server) PrivateAddrs(name string) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var addrs []netip.Addr
	for _, d := range s.sortedDroplets() {
		if equalFold(d.machine.Name, name) {
			addrs = append(addrs, d.machine.Private)
		}
	}
	return addrs
}

// status asks the backend whether machine id runs. The caller does not hold s.mu.
func (s *Server) status(id int, booted bool) string {
	switch {
	case !booted:
		return statusNew
	case s.backend.Running(id):
		return statusActive
	}
	return statusOff
}

// freeHost picks the next machine number that is not in use, going round, so that a number (and with it an address)
// is not given out again at once. The caller holds s.mu.
func (s *Server) freeHost() (int, bool) {
	p := s.opt.Addresses
	room := min(hosts(p.Public), hosts(p.Private), hosts(p.Anchor))
	used := make([]int, 0, len(s.droplets))
	for _, d := range s.droplets {
		used = append(used, d.host)
	}
	for range room {
		s.lastHost++
		if s.lastHost >= firstHost+room {
			s.lastHost = firstHost
		}
		if !slices.Contains(used, s.lastHost) {
			return s.lastHost, true
		}
	}
	return 0, false
}

// firstHost is the lowest machine number; 1 is the gateway.
const firstHost = 2
