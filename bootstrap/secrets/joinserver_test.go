package secrets

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

func TestNewJoinServerRefusesToLeaveACheckOut(t *testing.T) {
	for name, spoil := range map[string]func(*JoinConfig){
		"log":         func(c *JoinConfig) { c.Log = nil },
		"cluster":     func(c *JoinConfig) { c.Cluster = "" },
		"key":         func(c *JoinConfig) { c.ClusterKey = Secret{} },
		"certificate": func(c *JoinConfig) { c.Certificate = tls.Certificate{} },
		"membership":  func(c *JoinConfig) { c.Membership = nil },
		"source":      func(c *JoinConfig) { c.Source = nil },
		"used":        func(c *JoinConfig) { c.Used = nil },
	} {
		c := newPeer(t, nil).server.JoinConfig
		spoil(&c)
		if _, err := NewJoinServer(c); err == nil {
			t.Errorf("made without %s", name)
		}
	}
}

// closedByPeer waits until the other side closes; the deadline is the test's, far above the server's.
func closedByPeer(t *testing.T, conn net.Conn) {
	t.Helper()
	ok(conn.SetReadDeadline(time.Now().Add(20 * time.Second)))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Error("the server keeps the connection open")
	}
}

func isTimeout(err error) bool {
	timeout := net.Error(nil)
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestSlowCallersAreCutOff(t *testing.T) {
	p := newPeer(t, nil)
	p.server.limits.header, p.server.limits.body = 100*time.Millisecond, 200*time.Millisecond
	p.start(t)
	silent := must(net.Dial("tcp", p.addr)) // never begins the handshake
	defer silent.Close()
	dial := func() net.Conn { return must(tls.Dial("tcp", p.addr, pinnedTo(p.pin))) }
	header, body := dial(), dial()
	defer header.Close()
	defer body.Close()
	must(io.WriteString(header, "POST /v1/join HTTP/1.1\r\nX: "))
	must(io.WriteString(body, "POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"))
	for _, conn := range []net.Conn{silent, header, body} {
		closedByPeer(t, conn)
	}
	if _, err := Join(limited(t, 20*time.Second), p.ticket(), options()); err != nil {
		t.Errorf("beside slow callers: %v", err)
	}
}

func TestLargeHeadersAreRefused(t *testing.T) {
	p := newPeer(t, nil).start(t)
	conn := must(tls.Dial("tcp", p.addr, pinnedTo(p.pin)))
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST /v1/join HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 20<<10)+"\r\n\r\n") // may be cut off in the middle
	ok(conn.SetReadDeadline(time.Now().Add(20 * time.Second)))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 431 ") {
		t.Errorf("got %q, %v; want status 431", line, err)
	}
}

func TestOneSourceCannotHoldAllConnections(t *testing.T) {
	p := newPeer(t, nil)
	p.server.limits.connsPerSource = 2
	p.start(t)
	first, second, third := must(net.Dial("tcp", p.addr)), must(net.Dial("tcp", p.addr)), must(net.Dial("tcp", p.addr))
	defer third.Close()
	closedByPeer(t, third)
	ok(first.Close())
	ok(second.Close())
	if _, err := Join(limited(t, 20*time.Second), p.ticket(), options()); err != nil {
		t.Errorf("after the others have gone: %v", err)
	}
}

func TestListenerCountsWhatIsOpen(t *testing.T) {
	l := newBoundedListener(nil, 3, 2)
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	if first, second, third := l.admit(a), l.admit(a), l.admit(a); !first || !second || third {
		t.Error("one source holds more or less than 2")
	}
	if !l.admit(b) || l.admit(c) {
		t.Error("all together hold more or less than 3")
	}
	l.release(a)
	if !l.admit(c) {
		t.Error("a closed connection still counts")
	}
	l.release(a)
	l.release(b)
	l.release(c)
	if l.open != 0 || len(l.from) != 0 {
		t.Errorf("all closed, and %d open from %v", l.open, l.from)
	}
}

func TestRateIsBoundedPerSource(t *testing.T) {
	l := &rateLimit{every: time.Second, burst: 3, sources: 2}
	now := time.Unix(1000, 0)
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("10.0.0.3")
	for i := range 3 {
		if !l.allow(a, now) {
			t.Errorf("request %d of the burst is refused", i+1)
		}
	}
	if l.allow(a, now) || l.allow(netip.MustParseAddr("::ffff:10.0.0.1"), now) {
		t.Error("a fourth at once is let through")
	}
	if !l.allow(b, now) {
		t.Error("another source pays for the first")
	}
	if l.allow(c, now) || len(l.next) != 2 {
		t.Error("more sources are remembered than fit")
	}
	for range 2 {
		if !l.allow(netip.MustParseAddr("2001:db8::beef"), now) {
			t.Error("the burst of a /64 is too small")
		}
	}
	if l.allow(netip.MustParseAddr("2001:db8::cafe"), now) {
		t.Error("a host with a /64 has many allowances")
	}
	if now = now.Add(time.Second); !l.allow(a, now) || l.allow(a, now) {
		t.Error("after one second there is not exactly one more")
	}
	if now = now.Add(time.Minute); !l.allow(c, now) || len(l.next) != 1 {
		t.Error("sources that are quiet are not forgotten")
	}
}

func TestFloodIsAnsweredWithAskAgain(t *testing.T) {
	p := newPeer(t, nil)
	p.server.rate = &rateLimit{every: time.Hour, burst: 1, sources: 10}
	p.post("", nil)
	w := p.post("", nil)
	var problem joinProblem
	if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestStopLetsARunningJoinFinish(t *testing.T) {
	inside, finish := make(chan struct{}), make(chan struct{})
	p := newPeer(t, func(c *JoinConfig) {
		c.Source = func(context.Context, Ticket, netip.AddrPort, string) error {
			close(inside)
			<-finish
			return nil
		}
	})
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	p.addr = ln.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	served, joined := make(chan error, 1), make(chan error, 1)
	go func() { served <- p.server.Serve(ctx, ln) }()
	go func() {
		_, err := Join(limited(t, 20*time.Second), p.ticket(), options())
		joined <- err
	}()
	<-inside
	stop()
	for { // no new callers from here on
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	close(finish)
	if err := <-joined; err != nil {
		t.Errorf("the running join got %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve ended with %v, want nil", err)
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	ok(ln.Close())
	if err := newPeer(t, nil).server.Serve(t.Context(), ln); err == nil {
		t.Error("served on a closed listener")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newPeer(t, nil).server.Serve(ctx, must(net.Listen("tcp", "127.0.0.1:0"))); err != nil {
		t.Errorf("stopped before it began: got %v, want nil", err)
	}
}

func FuzzParseJoinRequest(f *testing.F) {
	ticket := must(IssueTicket(testKey, ticketFor("web1", "10.0.0.2:7747")))
	f.Add([]byte(requestBody(ticket)))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"ticket":null,"recipient":[],"machine_id":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		j, err := parseJoinRequest(body)
		if err != nil {
			return
		}
		if err := j.ticket.check(); err != nil || j.recipient == nil || !machinePattern.MatchString(j.machineID) {
			t.Fatalf("accepted %q: %v", body, err)
		}
		if _, err := j.grant(Membership{Identity: fuzzIdentity}); err != nil {
			t.Fatalf("cannot be answered: %v", err)
		}
	})
}

var fuzzIdentity = must(age.GenerateX25519Identity())
