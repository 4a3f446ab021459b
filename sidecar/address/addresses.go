//go:build linux

package address

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"understudy/sidecar/cluster"
)

// Addresses are the gates and link addresses of this machine's roles. All methods may be called at any time from any
// goroutine; they wait for one another.
type Addresses struct {
	log   *slog.Logger
	specs []Spec
	table *table

	mu     sync.Mutex
	nft    *nftables.Conn // for the rules
	kernel kernel         // for the sets' elements, by
	batch  batch
	links  *netlink.Handle
	raw    announcer
	diag   diagnosis
	gates  map[string]*gate
	// ticket is the number of the newest ticket.
	ticket uint32
	// between is called between the reading of the clock and the writing of a gate. Only tests set it.
	between func()
	// changed wakes Run when there is something new to announce.
	changed chan struct{}
}

// gate is what we know of a role's gate.
type gate struct {
	Spec
	until cluster.Instant // open until then as far as we know; zero: closed
	drain bool
	added bool // the link address is on its interface, as far as we know
	// announced is how many announcements have been made since the address was there and the gate open, from since on.
	announced int
	since     cluster.Instant
}

// link tells whether ip is the address that we put on a link.
func (g *gate) link(ip netip.Addr) linkAddress { return linkAddress(ip == g.Link.Addr()) }

// Open puts the rules for specs into the kernel, with every gate closed, in place of those that an earlier process left:
// no gate is open for a moment that was closed. Link addresses that the earlier rules were for and specs are not are
// taken away before; those of specs are left as they are. It returns an error if the kernel lacks something, an interface of
// specs is missing, or specs are wrong; then the earlier rules stand.
//
// All it opens belongs to the network namespace of the calling thread (network_namespaces(7)).
func Open(log *slog.Logger, specs []Spec) (*Addresses, error) {
	if err := check(specs); err != nil {
		return nil, err
	}
	nonce := rand.Uint32()
	a := &Addresses{
		log: log, specs: slices.Clone(specs), table: newTable(nonce),
		kernel: kernel{fd: -1}, raw: announcer{arp: -1, icmp: -1}, diag: diagnosis{fd: -1},
		gates: map[string]*gate{}, changed: make(chan struct{}, 1),
	}
	for _, s := range a.specs {
		a.gates[s.Role] = &gate{Spec: s, announced: len(announcements)}
	}
	if err := a.open(); err != nil {
		return nil, errors.Join(err, a.release())
	}
	return a, nil
}

func (a *Addresses) open() (err error) {
	if a.nft, err = nftables.New(nftables.AsLasting()); err != nil {
		return fmt.Errorf("open a netlink socket for nftables: %w", err)
	}
	if err := a.kernel.open(); err != nil {
		return err
	}
	if a.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open a netlink socket for addresses: %w", err)
	}
	if err := a.links.SetSocketTimeout(netlinkTimeout); err != nil {
		return fmt.Errorf("bound the netlink socket's waits: %w", err)
	}
	if err := errors.Join(a.raw.open(), a.diag.open()); err != nil {
		return err
	}
	if err := a.forgetOthers(); err != nil {
		return err
	}
	for _, g := range a.gates {
		if g.Link.IsValid() {
			if g.added, err = a.present(g); err != nil {
				return err
			}
		}
	}
	return a.table.install(a.nft, a.specs)
}

// netlinkTimeout bounds the wait for the kernel's answer, which is there when the request has been sent.
const netlinkTimeout = 2 * time.Second

// forgetOthers takes away the link addresses that the table in the kernel is for and this one will not be: without a gate
// they would answer for ever.
func (a *Addresses) forgetOthers() error {
	earlier, err := linkAddresses(a.nft, a.table)
	if err != nil {
		return err
	}
	for _, g := range a.gates {
		earlier = slices.DeleteFunc(earlier, func(ip netip.Addr) bool { return slices.Contains(g.addresses(), ip) })
	}
	if len(earlier) == 0 {
		return nil
	}
	present, err := a.links.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, p := range present {
		if ip, _ := netip.AddrFromSlice(p.IP); slices.Contains(earlier, ip.Unmap()) {
			a.log.Info("taking away an address that no role has any more", "address", p.IPNet.String())
			if err := a.links.AddrDel(nil, &p); err != nil {
				return fmt.Errorf("take %s away: %w", p.IPNet, err)
			}
		}
	}
	return nil
}

// Close closes every gate, takes the link addresses away and gives the sockets back. The rules stay, with every gate closed:
// an anchor address must not answer because the sidecar has gone. After another process has taken over the gates only the
// sockets are given back, and ErrSuperseded is returned.
func (a *Addresses) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.kernel.fd < 0 {
		return nil
	}
	err := a.closeAll()
	if errors.Is(err, ErrSuperseded) { // what is there now is that other process's
		return errors.Join(err, a.release())
	}
	errs := []error{err}
	for _, role := range a.roles() {
		if g := a.gates[role]; g.Link.IsValid() {
			errs = append(errs, a.remove(g))
		}
	}
	return errors.Join(append(errs, a.release())...)
}

// release gives back what open has opened.
func (a *Addresses) release() error {
	var errs []error
	if a.nft != nil {
		errs = append(errs, a.nft.CloseLasting())
	}
	if a.links != nil {
		a.links.Close()
	}
	return errors.Join(append(errs, shut(&a.kernel.fd), shut(&a.raw.arp), shut(&a.raw.icmp), shut(&a.diag.fd))...)
}

// Tidy closes every gate of specs and takes their link addresses away, whoever opened and added them: for the time after
// the sidecar. It does as much as it can, and tells what it could not.
func Tidy(log *slog.Logger, specs []Spec) error {
	a, err := Open(log, specs)
	if err != nil {
		return err
	}
	return a.Close()
}

// roles are the roles in a fixed order.
func (a *Addresses) roles() []string {
	names := make([]string, len(a.specs))
	for i, s := range a.specs {
		names[i] = s.Role
	}
	return names
}

// gate finds a role's gate.
func (a *Addresses) gate(role string) (*gate, error) {
	g, ok := a.gates[role]
	if !ok {
		return nil, fmt.Errorf("role %s has no address here", role)
	}
	return g, nil
}
