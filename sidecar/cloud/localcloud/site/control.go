//go:build linux

package site

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/cloud/localcloud/netns"
	"understudy/sidecar/cloud/localcloud/nspawn"
)

// ErrNotUp says that no local cloud of that name answers.
var ErrNotUp = errors.New("is not up")

const socketName = "control.sock"

func (s *Site) path(name string) string { return filepath.Join(s.opt.Dir, name) }

// serveControl answers the command line on a Unix socket that only root can reach.
func (s *Site) serveControl(ctx context.Context, g *errgroup.Group) error {
	l, err := net.Listen("unix", s.path(socketName))
	if err != nil {
		return fmt.Errorf("open the control socket: %w", err)
	}
	if err := os.Chmod(s.path(socketName), 0o600); err != nil {
		return fmt.Errorf("open the control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Status(), nil) })
	mux.HandleFunc("POST /destroy", func(w http.ResponseWriter, r *http.Request) { answer(w, nil, s.destroy(r)) })
	mux.HandleFunc("POST /partition", func(w http.ResponseWriter, r *http.Request) { answer(w, nil, s.partition(r)) })
	mux.HandleFunc("POST /fault", func(w http.ResponseWriter, r *http.Request) { answer(w, nil, s.setFault(r)) })
	mux.HandleFunc("POST /heal", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil, s.net.Heal()) })
	g.Go(func() error { return serveHTTP(ctx, l, mux) })
	return nil
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the asker is gone if this fails
}

// destroy deletes the machines of the named nodes through the API, all at once.
func (s *Site) destroy(r *http.Request) error {
	var nodes []string
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&nodes); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	ids := make([]int, len(nodes))
	for i, name := range nodes {
		n, err := s.node(name)
		if err != nil {
			return err
		}
		ids[i] = n.Machine
	}
	g, ctx := errgroup.WithContext(r.Context())
	for _, id := range ids {
		g.Go(func() error {
			_, err := s.account.api.Droplets.Delete(ctx, id)
			return err
		})
	}
	return g.Wait()
}

func (s *Site) node(name string) (Node, error) {
	for _, n := range s.watch.list() {
		if n.Name == name {
			if n.Machine == 0 {
				return n, fmt.Errorf("%s has no machine yet", name)
			}
			return n, nil
		}
	}
	return Node{}, fmt.Errorf("no node is called %q; see: understudy local status", name)
}

// partition cuts two nodes off from each other, or only what the first sends to the second.
func (s *Site) partition(r *http.Request) error {
	var req struct {
		A, B   string
		OneWay bool
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&req); err != nil {
		return fmt.Errorf("partition: %w", err)
	}
	a, err := s.node(req.A)
	if err != nil {
		return err
	}
	b, err := s.node(req.B)
	if err != nil {
		return err
	}
	if a.Name == b.Name {
		return fmt.Errorf("%s cannot be cut off from itself", a.Name)
	}
	from, to := netns.PortOf(nspawn.Name(s.opt.Name, a.Machine)), netns.PortOf(nspawn.Name(s.opt.Name, b.Machine))
	if err := s.net.Cut(from, to); err != nil || req.OneWay {
		return err
	}
	return s.net.Cut(to, from)
}

// Client talks to a running local cloud.
type Client struct {
	Name, Dir string
}

// Status asks the cloud for its state. The error wraps ErrNotUp when nobody answers.
func (c Client) Status(ctx context.Context) (Status, error) {
	var st Status
	return st, c.call(ctx, http.MethodGet, "/status", nil, &st)
}

// Destroy deletes the machines of nodes through the provider's API, without warning.
func (c Client) Destroy(ctx context.Context, nodes []string) error {
	return c.call(ctx, http.MethodPost, "/destroy", nodes, nil)
}

// Direction says which way a partition cuts.
type Direction bool

// The directions of a partition.
const (
	BothWays Direction = false
	OneWay   Direction = true
)

// Partition cuts a off from b; with OneWay only what a sends to b is lost.
func (c Client) Partition(ctx context.Context, a, b string, d Direction) error {
	return c.call(ctx, http.MethodPost, "/partition", map[string]any{"A": a, "B": b, "OneWay": d}, nil)
}

// Heal takes all partitions back.
func (c Client) Heal(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/heal", nil, nil)
}

func (c Client) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://cloud"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(c.Dir, socketName))
	}
	hc := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 2 * time.Minute}
	res, err := hc.Do(req)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("local cloud %s %w; bring it up with: understudy local up --name %[1]s", c.Name, ErrNotUp)
	}
	if err != nil {
		return fmt.Errorf("local cloud %s: %w", c.Name, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return fmt.Errorf("local cloud %s: %w", c.Name, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("local cloud %s: %s", c.Name, bytes.TrimSpace(data))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}
