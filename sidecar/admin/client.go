package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// maxAnswer is far above the status of a large cluster.
const maxAnswer = 16 << 20

const dialTimeout = 5 * time.Second

// ErrUnreachable says that no sidecar could be asked. What was asked for may have happened only if it was an order.
var ErrUnreachable = errors.New("no sidecar answers")

// Client asks one sidecar. It may be used by many at once.
type Client struct {
	http  http.Client
	base  string
	where string
	tls   *tls.Config // nil: on the socket
}

// NewSocketClient asks the sidecar behind a Unix socket.
func NewSocketClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return newClient(&http.Transport{DialContext: dial}, "http://sidecar", path)
}

// NewTLSClient asks the sidecar at host:port. The configuration is from Authority.Client or ReadPEM.
func NewTLSClient(addr string, cfg *tls.Config) *Client {
	c := newClient(&http.Transport{TLSClientConfig: cfg, TLSHandshakeTimeout: dialTimeout,
		DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext}, "https://"+addr, addr)
	c.tls = cfg
	return c
}

func newClient(t *http.Transport, base, where string) *Client {
	t.MaxIdleConns, t.IdleConnTimeout = 1, 10*time.Second
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{http: http.Client{Transport: t, Timeout: 30 * time.Second, CheckRedirect: refuse}, base: base, where: where}
}

// Close gives the connection back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for what the node believes.
func (c *Client) Status(ctx context.Context) (Status, error) { return ask[Status](ctx, c, "status") }

// StatusOfAll asks for the same, and makes the node ask all others it hears for what they do and what blocks them.
func (c *Client) StatusOfAll(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, "status?everywhere=true")
}

// Plan asks for what the node would do.
func (c *Client) Plan(ctx context.Context) (Plan, error) { return ask[Plan](ctx, c, "plan") }

// Incidents asks for the cluster's history.
func (c *Client) Incidents(ctx context.Context) ([]Incident, error) {
	all, err := ask[Incidents](ctx, c, "incidents")
	return all.Incidents, err
}

// Switchover orders a move. An error that wraps ErrUnreachable leaves open whether the order was taken.
func (c *Client) Switchover(ctx context.Context, m Move) (Moving, error) {
	return order[Moving](ctx, c, "switchover", m)
}

// Destroy orders chaos. A *Problem with a status below 500 says that nothing has happened; after any other error the machine may
// be gone.
func (c *Client) Destroy(ctx context.Context, d Destroy) (Destroyed, error) {
	return order[Destroyed](ctx, c, "chaos", d)
}

// Pause makes the node, or every one, only observe.
func (c *Client) Pause(ctx context.Context, p Pause) (Pausing, error) {
	return order[Pausing](ctx, c, "pause", p)
}

// Resume lets the node, or every one, act again.
func (c *Client) Resume(ctx context.Context, p Pause) (Pausing, error) {
	return order[Pausing](ctx, c, "resume", p)
}

// Recover has a machine kept that may have data which no other has.
func (c *Client) Recover(ctx context.Context, w WishFor) (Wished, error) {
	return order[Wished](ctx, c, "recover", w)
}

// Discard gives such a machine's data up.
func (c *Client) Discard(ctx context.Context, w WishFor) (Wished, error) {
	return order[Wished](ctx, c, "discard", w)
}

// Sync asks how roles' data are mirrored, and has done what f asks for.
func (c *Client) Sync(ctx context.Context, f SyncFor) (Synced, error) {
	return order[Synced](ctx, c, "sync", f)
}

// Apply has the node look for a newer commit.
func (c *Client) Apply(ctx context.Context, a Apply) (Applying, error) {
	return order[Applying](ctx, c, "apply", a)
}

// Runs asks for the node's newest runs of Puppet.
func (c *Client) Runs(ctx context.Context) (Runs, error) {
	return ask[Runs](ctx, c, "runs")
}

// Remembered asks for what the node knows to have been in the ledger.
func (c *Client) Remembered(ctx context.Context) (Remembered, error) {
	return ask[Remembered](ctx, c, "ledger")
}

// Reseed has the ledger filled from what the nodes remember. It may be repeated.
func (c *Client) Reseed(ctx context.Context, r Reseed) (Reseeded, error) {
	return order[Reseeded](ctx, c, "ledger/reseed", r)
}

// Access asks for an operator's certificate, as a PEM file with its key. It is answered on the node's socket only.
func (c *Client) Access(ctx context.Context, a Access) ([]byte, error) {
	body, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	return c.call(ctx, http.MethodPost, "access", body)
}

func ask[T any](ctx context.Context, c *Client, route string) (T, error) {
	return read[T](c.call(ctx, http.MethodGet, route, nil))
}

func order[T any](ctx context.Context, c *Client, route string, what any) (T, error) {
	body, err := json.Marshal(what)
	if err != nil {
		return *new(T), err
	}
	return read[T](c.call(ctx, http.MethodPost, route, body))
}

// read takes keys it does not know for those of a newer sidecar.
func read[T any](body []byte, err error) (T, error) {
	var v T
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return *new(T), fmt.Errorf("read the sidecar's answer: %w", err)
	}
	return v, nil
}

func (c *Client) call(ctx context.Context, method, route string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/v1/"+route, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, c.unreachable(ctx, err)
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("the answer of %s has more than %d bytes", c.where, maxAnswer)
	case res.StatusCode/100 == 2:
		return answer, nil
	}
	p := Problem{Status: res.StatusCode, Title: res.Status}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind == "application/problem+json" {
		_ = json.Unmarshal(answer, &p) // what it does not say stays as set
	}
	return nil, &p
}

// unreachable says what to do about a sidecar that cannot be asked.
func (c *Client) unreachable(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.where, context.Cause(ctx))
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w at %s: only root may ask it; try sudo", ErrUnreachable, c.where)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w at %s: is it running? On the node: systemctl status understudy", ErrUnreachable, c.where)
	}
	if refusal := c.refusal(ctx); refusal != nil {
		return fmt.Errorf("%w at %s: %w; a certificate is made on a node: understudy access", ErrUnreachable, c.where, refusal)
	}
	var of *url.Error // it repeats where
	if errors.As(err, &of) {
		err = of.Err
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.where, err)
}

// refusal asks once more why a server does not let us in. In TLS 1.3 the client is done with the handshake before the
// server looks at its certificate (RFC 8446, 2), so the request meets a closed connection, or the alert, as chance has it;
// who only reads gets the alert.
func (c *Client) refusal(ctx context.Context) error {
	if c.tls == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addr := strings.TrimPrefix(c.base, "https://")
	conn, err := (&tls.Dialer{Config: c.tls}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil // what the caller has got says it already
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return nil
	}
	_, err = conn.Read(make([]byte, 1))
	var alert *net.OpError
	if errors.As(err, &alert) && alert.Op == "remote error" {
		return alert.Err
	}
	return nil
}
