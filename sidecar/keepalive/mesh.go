//go:build linux

package keepalive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/boottime"
	"understudy/sidecar/cluster"
)

// packetSize is what a beat should stay below so that no link on its way takes it apart.
const packetSize = 1200

// Mesh sends and receives beats. Its methods may be called from any goroutine.
type Mesh struct {
	log     *slog.Logger
	link    link
	beat    time.Duration
	changed chan struct{}
	wake    chan struct{} // for the sender: something to send earlier than it thinks

	mu      sync.Mutex
	node    *node
	sent    chan struct{} // closed, and replaced, when everybody has been sent what is said
	writing bool          // what is said has been composed, and is being sent
	large   bool          // it has been logged that beats are larger than a packet
}

// New makes a mesh that sends and receives on conn, a UDP socket or a test's own connection whose addresses are UDP's. The
// caller closes it after Run has ended. It fails on an invalid config only.
func New(cfg Config, conn net.PacketConn) (*Mesh, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	n, err := newNode(cfg, newSession())
	if err != nil {
		return nil, err
	}
	return &Mesh{
		log: cfg.Log, link: newLink(conn), beat: cfg.Beat, node: n,
		changed: make(chan struct{}, 1), wake: make(chan struct{}, 1), sent: make(chan struct{}),
	}, nil
}

// Run sends and receives until ctx ends, then sends everybody a last beat and returns nil. It returns an error if the
// connection is closed under it. It must be called once only.
func (m *Mesh) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	interrupt := context.AfterFunc(ctx, func() { m.link.interrupt() })
	defer interrupt()
	g.Go(func() error { return m.receive(ctx) })
	g.Go(func() error { return m.send(ctx) })
	return g.Wait()
}

// Say replaces what this node announces. If that differs from what it announced before in more than the lags of mirrors, a beat goes
// out to everybody at once, but not within 2 ms of another such. Until the first Say nothing is sent.
func (m *Mesh) Say(a cluster.Announcement) {
	m.mu.Lock()
	m.node.say(a)
	m.mu.Unlock()
	signal(m.wake)
}

// Flush returns when the newest announcement has been sent to everybody whose address is known. While Run does not, it waits
// for ctx, whose error it returns.
func (m *Mesh) Flush(ctx context.Context) error {
	for {
		m.mu.Lock()
		sent, waiting := m.sent, m.node.pending || m.writing
		m.mu.Unlock()
		if !waiting {
			return nil
		}
		select {
		case <-sent:
		case <-ctx.Done():
			return fmt.Errorf("send the newest beat: %w", ctx.Err())
		}
	}
}

// SetPeers replaces the members that beats are sent to and taken from, this node being none of them. The zero AddrPort says
// that a member's address is not known. A peer that is heard from another address is sent beats there, until it falls silent
// or SetPeers gives an address that differs from the one it gave before.
func (m *Mesh) SetPeers(peers map[string]netip.AddrPort) {
	m.mu.Lock()
	m.node.setPeers(peers)
	m.mu.Unlock()
}

// Peers returns what is known of every peer of SetPeers. The caller must not change the maps and slices inside. A member that
// a peer has never heard is in its Hears as cluster.Forever; one that the peer does not know of is not there. If this process
// stood still, Heard is later than the arrival of the beat by that long, see the package comment.
//
// Peers is the beginning of a turn that ends with Say: from the first call after a Say until the next Say, beats name no newer
// beats of others than that call has shown. So under a promise that a Say replaces, nothing was confirmed that was heard
// after the look on which the new one was decided. Who calls Peers and then never Say confirms nobody any longer.
func (m *Mesh) Peers() map[string]cluster.Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.node.look(boottime.Now())
	return m.node.snapshot()
}

// Reset forgets all that was heard and said, and begins a new session: beats that were underway count no more. Nothing is sent
// until the next Say. It is for the caller that finds out that it has not run for a while.
func (m *Mesh) Reset() {
	m.mu.Lock()
	m.node.reset(newSession())
	m.mu.Unlock()
}

// Changed yields a value after a peer has said something else, was heard for the first time, or again after two beats of it
// had failed to come. Many such changes may yield one value. Nothing tells of silence.
func (m *Mesh) Changed() <-chan struct{} { return m.changed }

// Stats returns counts since New.
func (m *Mesh) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.node.stats
	s.Refused = maps.Clone(s.Refused)
	s.Peers = make(map[string]PeerStats, len(m.node.order))
	for _, p := range m.node.order {
		of := p.stats
		of.Addr = p.addr
		s.Peers[p.name] = of
	}
	return s
}

func (m *Mesh) receive(ctx context.Context) error {
	packet := make([]byte, 1<<16)
	for {
		size, from, err := m.link.read(packet)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("receive beats: %w", err)
		case err != nil: // the network's bad weather; it must not make us spin
			m.log.Debug("receiving a beat", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(apart):
			}
			continue
		}
		m.mu.Lock()
		got := m.node.receive(packet[:size], from, boottime.Now())
		m.mu.Unlock()
		if got.answer != nil {
			m.write(got.answer, from)
		}
		if got.hurry {
			signal(m.wake)
		}
		if got.news {
			signal(m.changed)
		}
	}
}

func (m *Mesh) send(ctx context.Context) error {
	// Nodes that start together should not all send at the same instant ever after.
	timer := time.NewTimer(rand.N(m.beat))
	defer timer.Stop()
	var d due
	for {
		select {
		case <-ctx.Done():
			m.mu.Lock()
			m.node.pending, m.node.newsSent = m.node.said != nil, 0
			m.mu.Unlock()
			m.turn(&d)
			return nil
		case <-timer.C:
		case <-m.wake:
		}
		m.turn(&d)
		timer.Reset(d.next.Sub(boottime.Now()))
	}
}

// turn sends what is due.
func (m *Mesh) turn(d *due) {
	m.mu.Lock()
	m.node.due(boottime.Now(), d)
	m.writing = d.all
	warn := len(d.packet) > packetSize && !m.large
	m.large = m.large || warn
	m.mu.Unlock()
	if warn {
		m.log.Warn("beats are larger than one packet and will be sent in fragments", "bytes", len(d.packet), "limit", packetSize)
	}
	for _, to := range d.to {
		m.write(d.packet, to)
	}
	if d.all {
		m.mu.Lock()
		m.writing = false
		close(m.sent)
		m.sent = make(chan struct{})
		m.mu.Unlock()
	}
}

// write sends a datagram. That one cannot be sent now is like its loss on the way, and counted.
func (m *Mesh) write(packet []byte, to netip.AddrPort) {
	err := m.link.write(packet, to)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.node.stats.Unsent++
		return
	}
	m.node.stats.Sent.add(len(packet))
}

// signal puts a value into a channel that holds one, unless it is there.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
