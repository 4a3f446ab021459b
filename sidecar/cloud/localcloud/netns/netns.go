//go:build linux

// Package netns keeps a local cloud's network: one named network namespace with one bridge in it,
// to which the machines' interfaces are joined, and the address translation that a provider's
// routers do. Nothing of the host's own network is changed: no address, route, rule or link.
//
// One process can hold sockets in several namespaces: a socket belongs to the namespace of the
// thread that made it, for ever (setns(2), network_namespaces(7)). So Do runs a function on a
// thread of its own inside the namespace, and what it opens is used from anywhere afterwards.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Dir is where named namespaces lie, as ip-netns(8) has it.
const Dir = "/run/netns"

// Bridge is the name of the one bridge inside the namespace.
const Bridge = "br0"

// Namespace is one named network namespace. The zero value is not usable; see Create and Open.
type Namespace struct {
	Name string
	fd   vns.NsHandle

	mu    sync.Mutex
	nat   map[netip.Addr]netip.Addr // reserved or public address → where it leads; the zero Addr: to nobody
	drops map[drop]bool
}

type drop struct{ from, to string }

// Path is the file that stands for the namespace, for setns(2) and nsenter(1).
func Path(name string) string { return filepath.Join(Dir, name) }

// Exists tells whether a namespace of that name is there.
func Exists(name string) bool {
	_, err := os.Stat(Path(name))
	return err == nil
}

// Create makes the namespace with loopback up and the bridge up and holding addrs.
// It fails if the name is taken: clean what an earlier run left with Remove first.
func Create(name string, addrs ...netip.Prefix) (*Namespace, error) {
	if Exists(name) {
		return nil, fmt.Errorf("network namespace %s is there already", name)
	}
	err := onThread(func() error {
		h, err := vns.NewNamed(name) // also enters it, which is why this thread is thrown away
		if err != nil {
			return fmt.Errorf("make network namespace %s: %w", name, err)
		}
		return h.Close()
	})
	if err != nil {
		return nil, err
	}
	n, err := Open(name)
	if err != nil {
		return nil, err
	}
	if err := n.Do(func() error { return prepare(addrs) }); err != nil {
		return nil, errors.Join(err, n.Close(), Remove(name))
	}
	return n, nil
}

// Open takes a handle on a namespace that is there.
func Open(name string) (*Namespace, error) {
	fd, err := vns.GetFromPath(Path(name))
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	return &Namespace{Name: name, fd: fd, nat: map[netip.Addr]netip.Addr{}, drops: map[drop]bool{}}, nil
}

// Close gives the handle back; the namespace stays.
func (n *Namespace) Close() error { return n.fd.Close() }

// Remove deletes the name. The kernel frees the namespace, and all links in it, when the last
// process and socket in it are gone. Removing what is not there is no error.
func Remove(name string) error {
	if !Exists(name) {
		return nil
	}
	if err := vns.DeleteNamed(name); err != nil {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	return nil
}

// Do runs f on a thread inside the namespace and returns its error. Processes that f starts and
// sockets that f opens belong to the namespace; goroutines that f starts do not.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := vns.Set(n.fd); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.Name, err)
		}
		return f()
	})
}

// onThread runs f on a locked thread which ends with it, so that no namespace leaks into the
// scheduler's pool: a goroutine that exits while locked takes its thread along.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end before the process: it would stay in the namespace, and
			// /proc/self speaks of it. While it is locked here, the next try gets another one.
			done <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// Listen opens a TCP listener inside the namespace.
func (n *Namespace) Listen(ctx context.Context, address string) (net.Listener, error) {
	var l net.Listener
	err := n.Do(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		return err
	})
	return l, err
}

// ListenPacket opens a UDP socket inside the namespace.
func (n *Namespace) ListenPacket(ctx context.Context, address string) (net.PacketConn, error) {
	var p net.PacketConn
	err := n.Do(func() (err error) {
		p, err = (&net.ListenConfig{}).ListenPacket(ctx, "udp", address)
		return err
	})
	return p, err
}

// Dial connects over TCP from inside the namespace. The address must be numeric: name look-ups
// would run on other threads, in the host's namespace.
func (n *Namespace) Dial(ctx context.Context, address netip.AddrPort) (net.Conn, error) {
	var c net.Conn
	err := n.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp", address.String())
		return err
	})
	return c, err
}

// prepare runs inside the new namespace.
func prepare(addrs []netip.Prefix) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = Bridge
	// A fixed, locally administered address: a bridge otherwise takes its lowest port's and changes
	// it as machines come and go, which leaves stale ARP entries in all others.
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0x75, 0x73, 0, 0, 1}
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make bridge %s: %w", Bridge, err)
	}
	for _, p := range addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if err := netlink.AddrAdd(bridge, addr); err != nil {
			return fmt.Errorf("add %s to %s: %w", p, Bridge, err)
		}
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("bring %s up: %w", Bridge, err)
	}
	// The namespace is a router on one link: it must not tell machines to go around it.
	for _, key := range []string{"net/ipv4/conf/all/send_redirects", "net/ipv4/conf/default/send_redirects", "net/ipv4/conf/" + Bridge + "/send_redirects"} {
		if err := sysctl(key, "0"); err != nil {
			return err
		}
	}
	return sysctl("net/ipv4/ip_forward", "1")
}

// sysctl writes a per-namespace setting. /proc/sys/net shows the namespace of the thread that
// opens it, /proc/thread-self making sure that it is this one (proc(5)).
func sysctl(key, value string) error {
	f, err := os.OpenFile(filepath.Join("/proc/sys", key), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set %s: %w", key, err)
	}
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set %s: %w", key, err)
	}
	return nil
}

// Ports lists the interfaces joined to the bridge.
func (n *Namespace) Ports() ([]string, error) {
	var names []string
	err := n.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return fmt.Errorf("list links: %w", err)
		}
		for _, l := range links {
			if l.Type() == "veth" && l.Attrs().MasterIndex != 0 {
				names = append(names, l.Attrs().Name)
			}
		}
		return nil
	})
	return names, err
}

// SetPort takes a machine's interface up or down, like pulling its cable.
func (n *Namespace) SetPort(port string, up bool) error {
	return n.Do(func() error {
		l, err := netlink.LinkByName(port)
		if err != nil {
			return fmt.Errorf("find port %s: %w", port, err)
		}
		if up {
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	})
}

// forget drops the connection-tracking entries of an address, so that open connections follow the
// address to its new holder as they do when a provider moves it, and do not hang on the old one.
func (n *Namespace) forget(a netip.Addr) error {
	return n.Do(func() error {
		f := &netlink.ConntrackFilter{}
		if err := f.AddIP(netlink.ConntrackOrigDstIP, a.AsSlice()); err != nil {
			return err
		}
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f)
		return err
	})
}

// PortOf is the bridge port of a machine (systemd-nspawn prefixes "vb-"). It panics if the name is longer
// than an interface name may be.
func PortOf(machine string) string {
	port := "vb-" + machine
	if len(port) > unix.IFNAMSIZ-1 {
		panic("machine name too long for an interface: " + strings.TrimSpace(machine))
	}
	return port
}
