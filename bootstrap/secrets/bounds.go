package secrets

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// source is what counts as one caller: an IPv4 address, or an IPv6 /64, which is the least a host has to itself.
func source(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return addr // the zero Addr is a source too
	}
	return prefix.Addr()
}

// rateLimit lets each source make burst requests at once and one more per every. It remembers at most sources of them;
// while it is full of busy ones, strangers wait.
type rateLimit struct {
	every   time.Duration
	burst   int
	sources int

	mu   sync.Mutex
	next map[netip.Addr]time.Time // when a source's allowance is whole again
}

// allow is the generic cell rate algorithm (ITU-T I.371): a source may be at most burst × every ahead of its pace.
func (l *rateLimit) allow(addr netip.Addr, now time.Time) bool {
	key := source(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	whole, known := l.next[key]
	if !known && len(l.next) >= l.sources && !l.forget(now) {
		return false
	}
	if whole.Before(now) {
		whole = now
	}
	if whole = whole.Add(l.every); whole.Sub(now) > time.Duration(l.burst)*l.every {
		return false
	}
	if l.next == nil {
		l.next = make(map[netip.Addr]time.Time)
	}
	l.next[key] = whole
	return true
}

// forget drops the sources whose allowance is whole, as if they had never asked. It says whether there is room now.
func (l *rateLimit) forget(now time.Time) bool {
	for key, whole := range l.next {
		if !whole.After(now) {
			delete(l.next, key)
		}
	}
	return len(l.next) < l.sources
}

// boundedListener closes connections beyond its bounds at once, before any cryptography is done for them.
type boundedListener struct {
	net.Listener
	total, perSource int

	mu   sync.Mutex
	open int
	from map[netip.Addr]int
}

func newBoundedListener(ln net.Listener, total, perSource int) *boundedListener {
	return &boundedListener{Listener: ln, total: total, perSource: perSource, from: make(map[netip.Addr]int)}
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var key netip.Addr
		if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			key = source(tcp.AddrPort().Addr())
		}
		if l.admit(key) {
			return &boundedConn{Conn: conn, release: sync.OnceFunc(func() { l.release(key) })}, nil
		}
		_ = conn.Close() // the caller asks again; there is nobody to tell
	}
}

func (l *boundedListener) admit(key netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.total || l.from[key] >= l.perSource {
		return false
	}
	l.open++
	l.from[key]++
	return true
}

func (l *boundedListener) release(key netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.from[key]--; l.from[key] == 0 {
		delete(l.from, key)
	}
}

type boundedConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
