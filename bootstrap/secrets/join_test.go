package secrets

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
)

// peer is a join server on loopback and what a test wants to know of it.
type peer struct {
	addr   string
	pin    [32]byte
	log    *lockedBuffer
	member Membership
	server *JoinServer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// newPeer makes a server that believes every source, unless change says otherwise; it does not listen.
func newPeer(t *testing.T, change func(*JoinConfig)) *peer {
	t.Helper()
	cert, pin, err := NewServerIdentity()
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{pin: pin, log: &lockedBuffer{}, member: someMembership()}
	config := JoinConfig{
		Log: slog.New(slog.NewTextHandler(p.log, nil)), Cluster: "blog", ClusterKey: testKey, Certificate: cert, Used: &MemoryUsed{},
		Membership: func(context.Context, string) (Membership, error) { return p.member, nil },
		Source:     func(context.Context, Ticket, netip.AddrPort, string) error { return nil },
	}
	if change != nil {
		change(&config)
	}
	p.server = must(NewJoinServer(config))
	return p
}

// start listens and serves until the test ends.
func (p *peer) start(t *testing.T) *peer {
	t.Helper()
	p.addr = serve(t, p.server.Serve)
	return p
}

func serve(t *testing.T, run func(context.Context, net.Listener) error) string {
	t.Helper()
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve ended with %v, want nil", err)
		}
	})
	return ln.Addr().String()
}

// ticket is one for web1 that names the peer.
func (p *peer) ticket() Ticket {
	ticket := ticketFor("web1", p.addr)
	ticket.Pin = p.pin
	return must(IssueTicket(testKey, ticket))
}

func options() JoinOptions { return JoinOptions{MachineID: "4711", Log: quiet()} }

func limited(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func sameMembership(a, b Membership) bool {
	return a.Identity.String() == b.Identity.String() && bytes.Equal(a.AllowedSigners, b.AllowedSigners) && a.OldestCommit == b.OldestCommit && a.Commit == b.Commit
}

func TestNewcomerGetsTheMembership(t *testing.T) {
	var asked, joined atomic.Value
	p := newPeer(t, func(c *JoinConfig) {
		give := c.Membership
		c.Membership = func(ctx context.Context, node string) (Membership, error) {
			joined.Store(node)
			return give(ctx, node)
		}
		c.Source = func(_ context.Context, ticket Ticket, remote netip.AddrPort, machine string) error {
			asked.Store(fmt.Sprintf("%s %s %s", ticket.Node, remote.Addr(), machine))
			return nil
		}
	}).start(t)
	got, err := Join(limited(t, 20*time.Second), must(ParseUserData(p.ticket().UserData())), options())
	if err != nil || !sameMembership(got, p.member) {
		t.Fatalf("got %v, %v; want the membership", got, err)
	}
	if joined.Load() != "web1" {
		t.Errorf("the membership was made for %q, want web1", joined.Load())
	}
	if asked.Load() != "web1 127.0.0.1 4711" {
		t.Errorf("the source check was asked about %q", asked.Load())
	}
	if !strings.Contains(p.log.String(), `msg="node joined" node=web1 machine=4711`) {
		t.Errorf("the peer logged %q", p.log.String())
	}
}

func TestPeersShareOneIdentityThroughTheClusterKey(t *testing.T) {
	shared := func(c *JoinConfig) { c.Certificate, _, _ = ServerIdentity(testKey) }
	first, second := newPeer(t, shared), newPeer(t, shared).start(t)
	_, pin, err := ServerIdentity(testKey)
	if err != nil {
		t.Fatal(err)
	}
	gone := must(net.Listen("tcp", "127.0.0.1:0"))
	first.addr = gone.Addr().String()
	ok(gone.Close())
	ticket := ticketFor("web1", first.addr, second.addr)
	ticket.Pin = pin
	got, err := Join(limited(t, 20*time.Second), must(IssueTicket(testKey, ticket)), options())
	if err != nil || !sameMembership(got, second.member) {
		t.Errorf("got %v, %v; want the second peer's answer", got, err)
	}
	if _, other, _ := ServerIdentity(NewSecret(testKey.Reveal() + "x")); other == pin {
		t.Error("another cluster has the same pin")
	}
	if _, _, err := ServerIdentity(NewSecret("short")); err == nil {
		t.Error("derived from a short key")
	}
}

func TestServerWithAnotherKeyLearnsNothing(t *testing.T) {
	var asked atomic.Bool
	cert, _, _ := NewServerIdentity()
	addr := serve(t, oddServer(cert, func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	right := newPeer(t, nil).start(t)

	ticket := ticketFor("web1", addr)
	ticket.Pin = right.pin
	_, err := Join(limited(t, 300*time.Millisecond), must(IssueTicket(testKey, ticket)), options())
	if unreachable := (*UnreachableError)(nil); !errors.As(err, &unreachable) || !errors.Is(err, ErrWrongPin) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want unreachable because of the pin, until the deadline", err)
	}
	if asked.Load() {
		t.Error("the request was sent to a server with another key")
	}
	ticket.Peers = []string{addr, right.addr}
	if got, err := Join(limited(t, 20*time.Second), must(IssueTicket(testKey, ticket)), options()); err != nil || !sameMembership(got, right.member) {
		t.Errorf("after a wrong pin the next peer is not asked: %v", err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	p := newPeer(t, nil).start(t)
	conn, err := tls.Dial("tcp", p.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		_ = conn.Close()
		t.Error("the server spoke TLS 1.2")
	}
}

func refusedFor(err error) Reason {
	if refused := (*RefusedError)(nil); errors.As(err, &refused) && refused.Hint != "" && refused.Peer != "" {
		return refused.Reason
	}
	return Reason(fmt.Sprint("not refused: ", err))
}

func TestExpiredTicketIsRefused(t *testing.T) {
	p := newPeer(t, nil).start(t)
	ticket := p.ticket()
	ticket.Expires = time.Now().Add(-time.Second).UTC().Truncate(time.Second)
	ticket.MAC = ticket.mac(testKey)
	if _, err := Join(limited(t, 20*time.Second), ticket, options()); refusedFor(err) != ReasonExpired {
		t.Errorf("got %v, want %q", err, ReasonExpired)
	}
}

func TestTicketWorksForOneRecipientOnly(t *testing.T) {
	p := newPeer(t, nil).start(t)
	ticket, state := p.ticket(), t.TempDir()
	mine := options()
	mine.StateDir = state
	for range 3 { // the answer was lost, the node crashed: it asks again with the same join key
		if got, err := Join(limited(t, 20*time.Second), ticket, mine); err != nil || !sameMembership(got, p.member) {
			t.Fatalf("got %v, %v; want the membership each time", got, err)
		}
	}
	if _, err := Join(limited(t, 20*time.Second), ticket, options()); refusedFor(err) != ReasonUsed {
		t.Errorf("another recipient: got %v, want %q", err, ReasonUsed)
	}
	if !strings.Contains(p.log.String(), `msg="join refused" node=web1`) {
		t.Errorf("the peer did not log the second use: %q", p.log.String())
	}
	ok(SaveMembership(state, p.member))
	if _, err := Join(limited(t, 20*time.Second), ticket, mine); refusedFor(err) != ReasonUsed {
		t.Errorf("after the join key is gone: got %v, want %q", err, ReasonUsed)
	}
	if _, err := Join(limited(t, 20*time.Second), p.ticket(), options()); err != nil {
		t.Errorf("another ticket: %v", err)
	}
}

// cutOnClaim drops the newcomer's connection right after the ticket is spent, the first time.
type cutOnClaim struct {
	MemoryUsed
	cut  func()
	once sync.Once
}

func (u *cutOnClaim) Claim(ctx context.Context, nonce, recipient string) error {
	err := u.MemoryUsed.Claim(ctx, nonce, recipient)
	u.once.Do(u.cut)
	return err
}

func TestLostAnswerIsAskedForAgain(t *testing.T) {
	var current atomic.Value
	used := &cutOnClaim{cut: func() { _ = current.Load().(net.Conn).Close() }}
	p := newPeer(t, func(c *JoinConfig) { c.Used = used }).start(t)
	dials := 0
	o := options()
	o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			current.Store(conn)
		}
		return conn, err
	}
	got, err := Join(limited(t, 20*time.Second), p.ticket(), o)
	if err != nil || !sameMembership(got, p.member) || dials != 2 {
		t.Errorf("got %v, %v after %d dials; want the membership after 2", got, err, dials)
	}
}

func TestWrongSourceIsRefusedAndDoesNotSpendTheTicket(t *testing.T) {
	wrong := atomic.Bool{}
	wrong.Store(true)
	p := newPeer(t, func(c *JoinConfig) {
		c.Source = func(context.Context, Ticket, netip.AddrPort, string) error {
			if wrong.Load() {
				return fmt.Errorf("machine 4711 is called mail1: %w", ErrWrongSource)
			}
			return nil
		}
	}).start(t)
	ticket := p.ticket()
	_, err := Join(limited(t, 20*time.Second), ticket, options())
	if refusedFor(err) != ReasonWrongSource {
		t.Errorf("got %v, want %q", err, ReasonWrongSource)
	}
	if strings.Contains(fmt.Sprint(err), "mail1") || !strings.Contains(p.log.String(), "mail1") {
		t.Errorf("what the provider said belongs into the peer's log only: %v", err)
	}
	wrong.Store(false)
	if _, err := Join(limited(t, 20*time.Second), ticket, options()); err != nil {
		t.Errorf("the right machine, after a thief was refused: %v", err)
	}
}

func TestWhatCannotBeToldNowIsAskedAgain(t *testing.T) {
	for name, spoil := range map[string]func(*JoinConfig, error){
		"source": func(c *JoinConfig, err error) {
			c.Source = func(context.Context, Ticket, netip.AddrPort, string) error { return err }
		},
		"used": func(c *JoinConfig, err error) { c.Used = usedFunc(func() error { return err }) },
		"membership": func(c *JoinConfig, err error) {
			c.Membership = func(context.Context, string) (Membership, error) { return Membership{}, err }
		},
		"empty": func(c *JoinConfig, _ error) {
			c.Membership = func(context.Context, string) (Membership, error) { return Membership{}, nil }
		},
	} {
		unsure := newPeer(t, func(c *JoinConfig) { spoil(c, errors.New("token "+canary)) }).start(t)
		_, err := Join(limited(t, 400*time.Millisecond), unsure.ticket(), options())
		if unreachable := (*UnreachableError)(nil); !errors.As(err, &unreachable) {
			t.Errorf("%s: got %v, want unreachable", name, err)
		}
		mustHide(t, err)
	}
}

type usedFunc func() error

func (f usedFunc) Claim(context.Context, string, string) error { return f() }

// post sends a body to the handler without TLS or network.
func (p *peer) post(body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, joinPath, strings.NewReader(body))
	r.RemoteAddr = "[::ffff:10.77.0.5]:4000"
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	p.server.ServeHTTP(w, r)
	return w
}

func requestBody(ticket Ticket) string {
	return string(must(json.Marshal(joinRequest{Ticket: ticket.text(), Recipient: must(age.GenerateX25519Identity()).Recipient().String(), MachineID: "1"})))
}

func TestTamperedTicketIsRefused(t *testing.T) {
	for field, change := range tamper {
		p := newPeer(t, func(c *JoinConfig) {
			c.Source = func(context.Context, Ticket, netip.AddrPort, string) error { panic("a false ticket got that far") }
		})
		p.addr = "10.0.0.2:7747"
		ticket := p.ticket()
		change(&ticket)
		w := p.post(requestBody(ticket), nil)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), string(ReasonNotGenuine)) {
			t.Errorf("%s: got %d %s, want 403 %q", field, w.Code, w.Body, ReasonNotGenuine)
		}
	}
	p := newPeer(t, func(c *JoinConfig) { c.Cluster = "wiki" })
	p.addr = "10.0.0.2:7747"
	if w := p.post(requestBody(p.ticket()), nil); !strings.Contains(w.Body.String(), string(ReasonOtherCluster)) {
		t.Errorf("genuine but for another cluster: got %s", w.Body)
	}
}

func TestBrokenRequestsAreRefusedWithoutBeingQuoted(t *testing.T) {
	p := newPeer(t, nil)
	p.addr = "10.0.0.2:7747"
	good := requestBody(p.ticket())
	for name, c := range map[string]struct {
		body   string
		change func(*http.Request)
		status int
	}{
		"empty":         {"", nil, 400},
		"not JSON":      {canary, nil, 400},
		"two values":    {good + good, nil, 400},
		"unknown field": {strings.Replace(good, `{"ticket"`, `{"`+canary+`":1,"ticket"`, 1), nil, 400},
		"recipient":     {strings.Replace(good, `"age1`, `"`+canary, 1), nil, 400},
		"machine":       {strings.Replace(good, `"machine_id":"1"`, `"machine_id":"\u001b[31m`+canary+`"`, 1), nil, 400},
		"no machine":    {strings.Replace(good, `"machine_id":"1"`, `"machine_id":""`, 1), nil, 400},
		"node":          {strings.Replace(good, `"web1"`, `"`+canary+`"`, 1), nil, 400},
		"large":         {good + strings.Repeat(" ", maxJoinRequest), nil, 413},
		"method":        {good, func(r *http.Request) { r.Method = http.MethodPut }, 404},
		"path":          {good, func(r *http.Request) { r.URL.Path = "/v2/join" }, 404},
		"no address":    {good, func(r *http.Request) { r.RemoteAddr = "@" }, 503},
		"cut": {good, func(r *http.Request) {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(good[:9]), brokenReader{}))
		}, 503},
	} {
		p.server.rate = &rateLimit{every: time.Second, burst: 10, sources: 1}
		w := p.post(c.body, c.change)
		if w.Code != c.status || w.Header().Get("Content-Type") != problemType {
			t.Errorf("%s: got %d %s, want a problem with %d", name, w.Code, w.Header(), c.status)
		}
		var problem joinProblem
		if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || problem.Title == "" || problem.Detail == "" || problem.Status != c.status {
			t.Errorf("%s: body is %s", name, w.Body)
		}
		if strings.Contains(w.Body.String()+p.log.String(), "CANARY") {
			t.Errorf("%s: quoted in %s or %s", name, w.Body, p.log)
		}
	}
	p.server.rate = &rateLimit{every: time.Second, burst: 10, sources: 1}
	if w := p.post(good, nil); w.Code != http.StatusOK {
		t.Errorf("the good request: got %d %s", w.Code, w.Body)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// oddServer is a pinned server whose answers are not ours.
func oddServer(cert tls.Certificate, handle http.HandlerFunc) func(context.Context, net.Listener) error {
	return func(ctx context.Context, ln net.Listener) error {
		server := &http.Server{Handler: handle, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
		stop := context.AfterFunc(ctx, func() { _ = server.Close() })
		defer stop()
		_ = server.Serve(tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}}))
		return nil
	}
}

func TestOddAnswersSendTheNewcomerToTheNextPeer(t *testing.T) {
	good := newPeer(t, nil).start(t)
	cert := good.server.Certificate
	sealedFor := func(r *http.Request, change func(*joinGrant)) []byte {
		j := must(parseJoinRequest(must(io.ReadAll(r.Body))))
		g := joinGrant{Cluster: "blog", Node: "web1", Nonce: j.ticket.text().Nonce, Identity: good.member.Identity.String()}
		change(&g)
		var sealed bytes.Buffer
		ok(encrypt(&sealed, must(json.Marshal(g)), j.recipient))
		return must(json.Marshal(joinAnswer{Sealed: sealed.Bytes()}))
	}
	answer := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Location", "https://"+good.addr+joinPath)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	grant := func(change func(*joinGrant)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(sealedFor(r, change)) }
	}
	for name, handle := range map[string]http.HandlerFunc{
		"redirect":        answer(307, "text/plain", "x"),
		"4xx, no problem": answer(404, "text/html", "<p>no"),
		"4xx, broken":     answer(403, problemType, "{"),
		"5xx problem":     answer(500, problemType, `{"title":"`+canary[:3]+`","detail":"x"}`),
		"no JSON":         answer(200, jsonType, "hello"),
		"not age":         answer(200, jsonType, `{"sealed":"aGVsbG8="}`),
		"for somebody":    answer(200, jsonType, `{"sealed":"`+base64.StdEncoding.EncodeToString(sealToStranger())+`"}`),
		"large": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(append(sealedFor(r, func(*joinGrant) {}), bytes.Repeat([]byte(" "), maxJoinAnswer)...))
		},
		"another cluster":  grant(func(g *joinGrant) { g.Cluster = "x" }),
		"another node":     grant(func(g *joinGrant) { g.Node = "x" }),
		"another nonce":    grant(func(g *joinGrant) { g.Nonce = "x" }),
		"no identity":      grant(func(g *joinGrant) { g.Identity = canary }),
		"no commit's hash": grant(func(g *joinGrant) { g.OldestCommit = canary }),
		"signers":          grant(func(g *joinGrant) { g.AllowedSigners = make([]byte, maxAllowedSigners+1) }),
		"hangs up":         func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		ticket := ticketFor("web1", serve(t, oddServer(cert, handle)), good.addr)
		ticket.Pin = good.pin
		var log lockedBuffer
		o := options()
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		good.server.rate = &rateLimit{every: time.Second, burst: 10, sources: 1}
		got, err := Join(limited(t, 20*time.Second), must(IssueTicket(testKey, ticket)), o)
		if err != nil || !sameMembership(got, good.member) {
			t.Errorf("%s: got %v, %v; want the next peer's answer", name, got, err)
		}
		if strings.Contains(log.String(), canary) || !strings.Contains(log.String(), "peer did not answer the join") {
			t.Errorf("%s: logged %s", name, log.String())
		}
	}
}

func sealToStranger() []byte {
	var out bytes.Buffer
	ok(encrypt(&out, []byte("{}"), must(age.GenerateX25519Identity()).Recipient()))
	return out.Bytes()
}

func TestPeersWordsAreBoundedAndPrintable(t *testing.T) {
	good := newPeer(t, nil)
	ticket := ticketFor("web1", serve(t, oddServer(good.server.Certificate, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", problemType)
		w.WriteHeader(403)
		ok(json.NewEncoder(w).Encode(joinProblem{Title: "\x1b[31mno\n", Detail: strings.Repeat("é", 9000)}))
	})))
	ticket.Pin = good.pin
	_, err := Join(limited(t, 20*time.Second), must(IssueTicket(testKey, ticket)), options())
	refused := (*RefusedError)(nil)
	if !errors.As(err, &refused) || refused.Reason != "[31mno" || len(refused.Hint) > maxHint || strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("got %q", err)
	}
}

func TestJoinEndsWithItsContext(t *testing.T) {
	ln := must(net.Listen("tcp", "127.0.0.1:0")) // accepts, never answers
	defer ln.Close()
	ticket := must(IssueTicket(testKey, ticketFor("web1", ln.Addr().String())))
	stopped := errors.New("the node shuts down")
	ctx, cancel := context.WithCancelCause(t.Context())
	o := options()
	o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		defer cancel(stopped) // in the middle of the handshake
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	_, err := Join(ctx, ticket, o)
	if unreachable := (*UnreachableError)(nil); !errors.As(err, &unreachable) || !errors.Is(err, stopped) {
		t.Errorf("got %v, want unreachable because %v", err, stopped)
	}
	for name, o := range map[string]JoinOptions{"no machine": {Log: quiet()}, "state": {Log: quiet(), MachineID: "1", StateDir: "/dev/null/x"}} {
		if _, err := Join(t.Context(), ticket, o); err == nil {
			t.Errorf("%s: joined", name)
		}
	}
	if _, err := Join(t.Context(), Ticket{}, options()); !errors.Is(err, ErrBadTicket) {
		t.Errorf("the zero ticket: got %v, want ErrBadTicket", err)
	}
}

// TestAnEndedTimeHidesNoReason ends the time during a later dial: what the operator reads is still the answer that came.
func TestAnEndedTimeHidesNoReason(t *testing.T) {
	ticket := must(IssueTicket(testKey, ticketFor("web1", "127.0.0.1:9")))
	refused, over := errors.New("connection refused"), errors.New("time is up")
	ctx, cancel := context.WithCancelCause(t.Context())
	dials := 0
	o := options()
	o.Dial = func(context.Context, string, string) (net.Conn, error) {
		if dials++; dials == 1 {
			return nil, refused
		}
		cancel(over)
		return nil, context.Canceled
	}
	_, err := Join(ctx, ticket, o)
	if dials != 2 || !errors.Is(err, refused) || !errors.Is(err, over) || errors.Is(err, context.Canceled) {
		t.Errorf("after %d dials: %v", dials, err)
	}
}
