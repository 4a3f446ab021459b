//go:build linux

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Every is the time between two probes.
const Every = time.Millisecond

// Prober asks, from a host of its own, who has an address: each probe is one ARP request to all, and one ICMP echo request to
// the address, sent as any client's packet would be. Times of answers are the kernel's.
type Prober struct {
	t       testing.TB
	host    *Host
	address netip.Addr
	raw     int // AF_PACKET: sends ARP, receives everything
	icmp    int
	began   time.Time
	stop    chan struct{}
	ended   sync.WaitGroup
	asked   atomic.Int64 // probes sent

	mu      sync.Mutex
	answers []Answer
}

// Answer is one answer to one probe.
type Answer struct {
	At    time.Time
	Probe int // number of the probe; probes of one number are 200 (ARP) or 65536 (echo) apart
	Echo  bool
	From  [6]byte // who answered
}

// Probe begins to ask from host who has address, until the end of the test.
func (h *Host) Probe(t testing.TB, address netip.Addr) *Prober {
	t.Helper()
	p := &Prober{t: t, host: h, address: address, began: time.Now(), stop: make(chan struct{})}
	if err := h.NS.Do(p.open); err != nil {
		t.Fatal(err)
	}
	p.ended.Add(2)
	go func() { defer p.ended.Done(); p.ask() }()
	go func() { defer p.ended.Done(); p.listen() }()
	t.Cleanup(func() {
		close(p.stop)
		p.ended.Wait()
		if err := errors.Join(unix.Close(p.raw), unix.Close(p.icmp)); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *Prober) open() (err error) {
	link, err := netlink.LinkByName(Interface)
	if err != nil {
		return err
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if p.raw, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	err = errors.Join(
		unix.Bind(p.raw, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}),
		unix.SetsockoptInt(p.raw, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(p.raw, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20),
		unix.SetsockoptTimeval(p.raw, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}))
	if err != nil {
		return err
	}
	p.icmp, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	return err
}

// ask sends the probes.
func (p *Prober) ask() {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		// A full queue loses a probe, as a network does.
		_, _ = unix.Write(p.raw, p.arp(n))
		_ = unix.Sendto(p.icmp, echo(uint16(n)), 0, &unix.SockaddrInet4{Addr: p.address.As4()})
		p.asked.Add(1)
	}
}

// arp is the request number n. The number is in the sender's address, which an answer brings back: 10.9.200.0 to .199.
func (p *Prober) arp(n int) []byte {
	var b []byte
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	b = append(b, p.host.MAC...)
	b = append(b, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1) // ARP, Ethernet and IPv4, request (RFC 826)
	b = append(b, p.host.MAC...)
	b = append(b, 10, 9, 200, byte(n%200))
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, p.address.AsSlice()...)
}

// echo is an ICMP echo request (RFC 792).
func echo(n uint16) []byte {
	b := []byte{8, 0, 0, 0, 0x75, 0x73, byte(n >> 8), byte(n)}
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}

// listen notes the answers.
func (p *Prober) listen() {
	frame, oob := make([]byte, 2048), make([]byte, 256)
	for {
		select {
		case <-p.stop:
			return
		default:
		}
		n, on, _, _, err := unix.Recvmsg(p.raw, frame, oob, 0)
		if err != nil {
			continue // the time limit, or a signal
		}
		a, ok := p.read(frame[:n])
		if !ok {
			continue
		}
		a.At = timestamp(oob[:on])
		p.mu.Lock()
		p.answers = append(p.answers, a)
		p.mu.Unlock()
	}
}

// read takes a frame for an answer, if it is one.
func (p *Prober) read(f []byte) (a Answer, ok bool) {
	if len(f) < 42 || !slices.Equal(f[:6], p.host.MAC) {
		return a, false
	}
	copy(a.From[:], f[6:12])
	switch kind := binary.BigEndian.Uint16(f[12:]); {
	case kind == unix.ETH_P_ARP && f[21] == 2 && slices.Equal(f[28:32], p.address.AsSlice()) && f[40] == 200:
		a.Probe = int(f[41])
		return a, true
	case kind == unix.ETH_P_IP && f[14] == 0x45 && f[23] == unix.IPPROTO_ICMP && f[34] == 0 && slices.Equal(f[26:30], p.address.AsSlice()):
		a.Echo, a.Probe = true, int(binary.BigEndian.Uint16(f[40:]))
		return a, true
	}
	return a, false
}

func timestamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
				return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			}
		}
	}
	return time.Now()
}

// Answers returns the answers since an instant, in the order of their arrival.
func (p *Prober) Answers(since time.Time) []Answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, _ := slices.BinarySearchFunc(p.answers, since, func(a Answer, t time.Time) int { return a.At.Compare(t) })
	return slices.Clone(p.answers[i:])
}

// Now is the host that answers now: the only one whose echo answers came within the last 50 ms. Empty: nobody, or several.
func (p *Prober) Now() string {
	var who string
	for _, a := range p.Answers(time.Now().Add(-50 * time.Millisecond)) {
		if !a.Echo {
			continue
		}
		if name := p.name(a.From); who == "" || who == name {
			who = name
		} else {
			return ""
		}
	}
	return who
}

func (p *Prober) name(mac [6]byte) string {
	for _, h := range p.host.wire.hosts {
		if slices.Equal(h.MAC, net.HardwareAddr(mac[:])) {
			return h.Name
		}
	}
	return fmt.Sprintf("%x", mac)
}

// Await waits until a host, and no other, answers, and returns when its first answer since an instant arrived, and the last
// one of anybody else before that.
func (p *Prober) Await(host string, since time.Time, within time.Duration) (first, lastOther time.Time) {
	p.t.Helper()
	Eventually(p.t, within, func() error {
		if now := p.Now(); now != host {
			return fmt.Errorf("%q answers, want %s", now, host)
		}
		return nil
	})
	for _, a := range p.Answers(since) {
		if !a.Echo {
			continue
		}
		if p.name(a.From) == host {
			return a.At, lastOther
		}
		lastOther = a.At
	}
	return time.Time{}, lastOther
}

// AtRest waits until one host has answered alone for d, and returns it.
func (p *Prober) AtRest(d, within time.Duration) string {
	p.t.Helper()
	now, since := "", time.Now()
	Eventually(p.t, within, func() error {
		if is := p.Now(); is != now || now == "" {
			now, since = is, time.Now()
		}
		if time.Since(since) < d {
			return errors.New("the address is not at rest")
		}
		return nil
	})
	return now
}

// Silent waits until nobody has answered fifty probes in a row. Probes are counted, not time: a machine that halts asks nothing.
func (p *Prober) Silent(within time.Duration) {
	p.t.Helper()
	since, asked := time.Now(), p.asked.Load()
	Eventually(p.t, within, func() error {
		n := p.asked.Load()
		if answers := len(p.Answers(since)); answers > 0 {
			since, asked = time.Now(), n
			return fmt.Errorf("%d answers", answers)
		}
		if n-asked < 50 {
			return fmt.Errorf("only %d probes went without an answer", n-asked)
		}
		return nil
	})
}

// Doubles are the probes that more than one host has answered, as sentences.
func (p *Prober) Doubles() []string {
	type key struct {
		echo  bool
		probe int
	}
	last := map[key]Answer{}
	var found []string
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.answers {
		k := key{a.Echo, a.Probe}
		if b, seen := last[k]; seen && a.At.Sub(b.At) < 100*Every && a.From != b.From {
			found = append(found, fmt.Sprintf("%s: probe %d (echo %v) was answered by %s and %s", a.At.Sub(p.began), a.Probe, a.Echo, p.name(b.From), p.name(a.From)))
		}
		last[k] = a
	}
	return found
}

// Holders lists who has answered since an instant, each change once.
func (p *Prober) Holders(since time.Time) []string {
	var all []string
	for _, a := range p.Answers(since) {
		if name := p.name(a.From); a.Echo && (len(all) == 0 || all[len(all)-1] != name) {
			all = append(all, name)
		}
	}
	return all
}

// Gap is the longest time without an echo answer between two instants.
func (p *Prober) Gap(from, to time.Time) time.Duration {
	var longest time.Duration
	last := from
	for _, a := range p.Answers(from) {
		if a.Echo && a.At.Before(to) {
			longest, last = max(longest, a.At.Sub(last)), a.At
		}
	}
	return max(longest, to.Sub(last))
}

// Program is the path in an environment variable, of something that a test runs.
func Program(t testing.TB, env, what string) string {
	t.Helper()
	path := os.Getenv(env)
	if path == "" {
		t.Fatalf("%s is not set: it says where %s is; `make test` sets it", env, what)
	}
	return path
}
