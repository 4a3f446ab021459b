//go:build linux

package peerlink

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/admin"
)

const (
	ourKey   = "0123456789abcdef0123456789abcdef"
	otherKey = "fedcba9876543210fedcba9876543210"
)

func authority(t testing.TB, key string) *admin.Authority {
	t.Helper()
	a, err := admin.NewAuthority(secrets.NewSecret(key))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func links(t testing.TB, key, self string) *Links {
	t.Helper()
	l, err := New(slog.New(slog.DiscardHandler), authority(t, key), self)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve answers as web1 until the test ends and returns where.
func serve(t testing.TB, protocols map[string]Handler) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	l := links(t, ourKey, "web1")
	go func() { ended <- l.Serve(ctx, ln, protocols) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// greets says who called, and echoes.
func greets(_ context.Context, peer string, conn net.Conn) error {
	if _, err := io.WriteString(conn, peer+"\n"); err != nil {
		return err
	}
	_, err := io.Copy(conn, conn)
	return err
}

func heard(t testing.TB, conn net.Conn, n int) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

func TestAStreamKnowsBothItsEnds(t *testing.T) {
	mirrored := func(_ context.Context, peer string, conn net.Conn) error {
		_, err := io.WriteString(conn, "mirror "+peer)
		return err
	}
	addr := serve(t, map[string]Handler{Journal: greets, Mirror: mirrored})
	for protocol, want := range map[string]string{Journal: "mail2\n", Mirror: "mirror mail2"} {
		conn, err := links(t, ourKey, "mail2").Dial(t.Context(), addr, "web1", protocol)
		if err != nil {
			t.Fatal(err)
		}
		if got := heard(t, conn, len(want)); got != want {
			t.Errorf("%s: got %q, want %q", protocol, got, want)
		}
		conn.Close()
	}
}

// An address may have gone to another machine since it was looked up.
func TestAnotherMemberAtTheAddressIsNotTalkedTo(t *testing.T) {
	addr := serve(t, map[string]Handler{Journal: greets})
	if _, err := links(t, ourKey, "mail2").Dial(t.Context(), addr, "web2", Journal); err == nil || !strings.Contains(err.Error(), "web1 answers there") {
		t.Errorf("got %v, want that it is web1", err)
	}
}

func TestAProtocolThatIsNotSpokenIsRefused(t *testing.T) {
	addr := serve(t, map[string]Handler{Journal: greets})
	if _, err := links(t, ourKey, "mail2").Dial(t.Context(), addr, "web1", Mirror); err == nil || !strings.Contains(err.Error(), "no application protocol") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestStrangersReachNoHandler(t *testing.T) {
	var mu sync.Mutex
	var reached []string
	addr := serve(t, map[string]Handler{Journal: func(_ context.Context, peer string, _ net.Conn) error {
		mu.Lock()
		defer mu.Unlock()
		reached = append(reached, peer)
		return nil
	}})
	ours := authority(t, ourKey)
	node, err := ours.Node("mail2")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := authority(t, otherKey).Node("mail2")
	if err != nil {
		t.Fatal(err)
	}
	operator, err := ours.Operator(time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for claim, change := range map[string]func(*tls.Config){
		"no certificate":                      func(c *tls.Config) { c.Certificates = nil },
		"another cluster's":                   func(c *tls.Config) { c.Certificates = []tls.Certificate{foreign} },
		"an operator, who is no member":       func(c *tls.Config) { c.Certificates = []tls.Certificate{operator} },
		"a member that names no protocol":     func(c *tls.Config) { c.NextProtos = nil },
		"a member that speaks an old version": func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
	} {
		cfg := ours.Client(node)
		cfg.NextProtos = []string{Journal}
		change(cfg)
		conn, err := tls.Dial("tcp", addr, cfg)
		if err == nil { // a client learns of the refusal when it reads
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %v, want to be hung up on", claim, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(reached) > 0 {
		t.Errorf("the handler has been called for %q", reached)
	}
}

// An operator's certificate could bear a node's name, and a listener with it must not pass for one.
func TestAServerThatIsNoNodeIsNotTalkedTo(t *testing.T) {
	a := authority(t, ourKey)
	cert, err := a.Operator(time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	cfg := a.Server(cert)
	cfg.NextProtos = []string{Journal}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if conn, err := ln.Accept(); err == nil {
			conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	if _, err := links(t, ourKey, "mail2").Dial(t.Context(), ln.Addr().String(), "operator", Journal); err == nil {
		t.Error("got a stream")
	}
}

// hungUp waits until the other side has closed conn, and returns how long that took.
func hungUp(t testing.TB, conn net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	conn.SetReadDeadline(start.Add(4 * handshakeTimeout))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nobody hung up within %v", time.Since(start))
	}
	return time.Since(start)
}

func TestASilentClientIsNotWaitedFor(t *testing.T) {
	addr := serve(t, map[string]Handler{Journal: greets})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if took := hungUp(t, conn); took < handshakeTimeout/2 {
		t.Errorf("hung up on after %v, want the time of a slow handshake", took)
	}
}

// Silent clients of one address use up what this address may, and leave members at others alone. Here all come from one, so
// it is after they have been hung up on that a member gets through.
func TestSilentClientsDoNotPileUp(t *testing.T) {
	addr := serve(t, map[string]Handler{Journal: greets})
	for range fromOneAddress {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	deadline := time.Now().Add(2 * time.Second)
	for {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		took := hungUp(t, conn)
		conn.Close()
		if took < handshakeTimeout/4 {
			break // one more is not taken
		}
		if time.Now().After(deadline) {
			t.Fatalf("one more than %d silent clients was kept", fromOneAddress)
		}
	}
	member := links(t, ourKey, "mail2")
	for deadline := time.Now().Add(3 * handshakeTimeout); ; time.Sleep(50 * time.Millisecond) {
		conn, err := member.Dial(t.Context(), addr, "web1", Journal)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a member is not let in after the silent ones have gone: %v", err)
		}
	}
}

func TestAMemberHasSoManyStreamsAndNoMore(t *testing.T) {
	addr := serve(t, map[string]Handler{Journal: greets, Mirror: greets})
	greedy, modest := links(t, ourKey, "mail2"), links(t, ourKey, "mail3")
	open := func(l *Links, name, protocol string) (net.Conn, error) {
		conn, err := l.Dial(t.Context(), addr, "web1", protocol)
		if err != nil {
			return nil, err
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = io.ReadFull(conn, make([]byte, len(name)+1))
		return conn, err
	}
	var last net.Conn
	for i := range perMember {
		conn, err := open(greedy, "mail2", Journal)
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		defer conn.Close()
		last = conn
	}
	if _, err := open(greedy, "mail2", Journal); err == nil {
		t.Errorf("got stream %d", perMember+1)
	}
	for _, other := range []struct {
		l              *Links
		name, protocol string
	}{{greedy, "mail2", Mirror}, {modest, "mail3", Journal}} {
		conn, err := open(other.l, other.name, other.protocol)
		if err != nil {
			t.Fatalf("%s, %s: %v", other.name, other.protocol, err)
		}
		conn.Close()
	}
	last.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := open(greedy, "mail2", Journal)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a stream that was closed still counts: %v", err)
		}
	}
}

func TestServeEndsItsStreams(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	l := links(t, ourKey, "web1")
	go func() { ended <- l.Serve(ctx, ln, map[string]Handler{Journal: greets}) }()
	conn, err := links(t, ourKey, "mail2").Dial(t.Context(), ln.Addr().String(), "web1", Journal)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	heard(t, conn, len("mail2\n"))
	silent, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("got %v, want no error", err)
		}
	case <-time.After(handshakeTimeout - time.Second):
		t.Fatal("serve goes on with streams open")
	}
	hungUp(t, conn)
}

// What the kernel was told is what makes DeadAfter true; a machine that vanishes is tests/netns' to make.
func TestAStreamNoticesAMachineThatIsGone(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := notice(conn); err != nil {
		t.Fatal(err)
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	option := func(fd uintptr, level, name int) int {
		n, err := unix.GetsockoptInt(int(fd), level, name)
		if err != nil {
			t.Error(err)
		}
		return n
	}
	if err := raw.Control(func(fd uintptr) {
		if got, want := option(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT), int(DeadAfter.Milliseconds()); got != want {
			t.Errorf("TCP_USER_TIMEOUT: got %d, want %d", got, want)
		}
		quiet := option(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE) + option(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)*option(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		if want := int(DeadAfter / time.Second); option(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 1 || quiet != want {
			t.Errorf("keepalive ends a quiet stream after %d s, want %d", quiet, want)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// FuzzServe: whatever arrives before a handshake is done, nobody's handler sees it, and the listener goes on.
func FuzzServe(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 3}) // the beginning of a ClientHello
	f.Add([]byte{22, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xfc, 3, 3})
	addr := serve(f, map[string]Handler{Journal: func(_ context.Context, peer string, _ net.Conn) error {
		f.Errorf("a handler was called for %q", peer)
		return nil
	}})
	f.Fuzz(func(t *testing.T, data []byte) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(data); err != nil {
			return
		}
		conn.(*net.TCPConn).CloseWrite()
		hungUp(t, conn)
	})
}
