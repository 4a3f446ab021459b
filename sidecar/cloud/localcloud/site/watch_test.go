//go:build linux

package site

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"golang.org/x/oauth2"

	"understudy/bootstrap/role"
	"understudy/sidecar/admin"
	"understudy/sidecar/cloud/localcloud"
)

const testRoster = `cluster: blog
domain: blog.test
provider:
  digitalocean: {region: lon1, size: [s-1vcpu-1gb], image: understudy-base}
dns: [digitalocean: {zone: blog.test}]
roles:
  lb: {nodes: "lb[1-2]", address: {reserved_ip: 203.0.113.10, names: ["@", www]}}
  repo: {nodes: "repo[1-2]", names: [apt], data: [{path: /srv/apt}]}
`

// testSite is a site whose machines exist in memory only, and the API to change what the provider knows.
func testSite(t *testing.T) (*Site, *godo.Client) {
	t.Helper()
	roster, err := role.Parse("roles.yaml", []byte(testRoster))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s := &Site{opt: Options{Name: "test"}, log: log, roster: roster, token: "token", started: time.Now()}
	o := s.cloudOptions()
	o.ActionDelay, o.BootDelay = 0, 0
	s.cloud = localcloud.New(log, &localcloud.Memory{}, o)
	t.Cleanup(func() {
		if err := s.cloud.Close(context.WithoutCancel(t.Context())); err != nil { // the test's is over by now
			t.Error(err)
		}
	})
	s.watch = newWatcher(s)
	srv := httptest.NewServer(s.cloud.API())
	t.Cleanup(srv.Close)
	api := godo.NewClient(oauth2.NewClient(t.Context(), oauth2.StaticTokenSource(&oauth2.Token{AccessToken: s.token})))
	if api.BaseURL, err = url.Parse(srv.URL + "/"); err != nil {
		t.Fatal(err)
	}
	for _, node := range roster.Nodes() {
		if _, _, err := api.Droplets.Create(t.Context(), &godo.DropletCreateRequest{
			Name: node, Region: "lon1", Size: "s-1vcpu-1gb", Image: godo.DropletCreateImage{ID: imageID}, Tags: []string{"blog"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	s.watch.machines()
	for _, n := range s.watch.nodes {
		n.Power = true
	}
	return s, api
}

// says is what a sidecar says of a node.
func says(s *Site, name, duty, phase string) admin.Node {
	n := s.watch.nodes[name]
	return admin.Node{Name: name, Role: n.Role, Duty: duty, Phase: phase, Alive: "alive", Health: "healthy", Machine: strconv.Itoa(n.Machine)}
}

func TestNodeServesWhenItsSidecarSaysSo(t *testing.T) {
	s, _ := testSite(t)
	for name, c := range map[string]struct {
		node   string
		change func(*admin.Node)
		want   bool
	}{
		"serving":                           {"lb1", func(*admin.Node) {}, true},
		"suspect for a moment":              {"lb1", func(n *admin.Node) { n.Alive = "suspect" }, true},
		"silent":                            {"lb1", func(n *admin.Node) { n.Alive, n.Phase = "failed", "failed" }, false},
		"draining":                          {"lb1", func(n *admin.Node) { n.Phase = "draining" }, false},
		"applied":                           {"lb2", func(n *admin.Node) { n.Duty, n.Phase = "standby", "applied" }, false},
		"standby whose data nobody mirrors": {"repo2", func(n *admin.Node) { n.Duty, n.Phase = "standby", "applied" }, true},
		"the same, unhealthy":               {"repo2", func(n *admin.Node) { n.Duty, n.Phase, n.Health = "standby", "applied", "unhealthy" }, false},
		"the same, silent":                  {"repo2", func(n *admin.Node) { n.Duty, n.Phase, n.Alive = "standby", "applied", "failed" }, false},
		"primary that has not begun":        {"repo1", func(n *admin.Node) { n.Phase = "applied" }, false},
		"of an incarnation that is gone":    {"lb1", func(n *admin.Node) { n.Machine = "1" }, false},
	} {
		s.watch = newWatcher(s)
		s.watch.machines()
		s.watch.nodes[c.node].Power = true
		n := says(s, c.node, "primary", "serving")
		c.change(&n)
		s.watch.heard(admin.Status{Nodes: []admin.Node{n, {Name: "stranger"}}})
		if got := !s.watch.nodes[c.node].Serving.IsZero(); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestServingBeganWhenItFirstDid(t *testing.T) {
	s, _ := testSite(t)
	hear := func(phase, alive string) Node {
		n := says(s, "lb1", "primary", phase)
		n.Alive = alive
		s.watch.heard(admin.Status{Nodes: []admin.Node{n}})
		return *s.watch.nodes["lb1"]
	}
	if n := hear("failed", "never heard"); n.Phase != "" {
		t.Errorf("before its sidecar spoke: got %q, want nothing", n.Phase)
	}
	first := hear("serving", "alive").Serving
	if n := hear("failed", "failed"); !n.Serving.IsZero() || n.Phase != "failed" {
		t.Errorf("failed: got %+v", n)
	}
	if n := hear("serving", "alive"); first.IsZero() || !n.Serving.Equal(first) {
		t.Errorf("again: got %v, want %v", n.Serving, first)
	}
	s.watch.has("lb1", s.watch.nodes["lb1"].Machine+1000, time.Now())
	if n := *s.watch.nodes["lb1"]; !n.Serving.IsZero() || n.Phase != "" || n.Role != "lb" || !n.First {
		t.Errorf("a new machine: got %+v, want one that has done nothing yet", n)
	}
}

// A cluster is up when the world finds its nodes, not when they think so.
func TestCloudServesWhenAddressesAndNamesLeadToTheNodes(t *testing.T) {
	s, api := testSite(t)
	ctx := t.Context()
	for _, step := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"nodes that nobody heard", func() error { return nil }, false},
		{"nodes that serve", func() error {
			s.watch.heard(admin.Status{Nodes: []admin.Node{says(s, "lb1", "primary", "serving"), says(s, "lb2", "standby", "serving"),
				says(s, "repo1", "primary", "serving"), says(s, "repo2", "standby", "applied")}})
			return nil
		}, false},
		{"a zone", func() error {
			_, _, err := api.Domains.Create(ctx, &godo.DomainCreateRequest{Name: "blog.test"})
			return err
		}, false},
		{"names", func() error {
			for _, name := range []string{"@", "www", "apt"} {
				if _, _, err := api.Domains.CreateRecord(ctx, "blog.test", &godo.DomainRecordEditRequest{Type: "A", Name: name, Data: "203.0.113.10", TTL: 60}); err != nil {
					return err
				}
			}
			return nil
		}, false},
		{"the address at the standby", func() error { return assign(t, s, api, "lb2") }, false},
		{"the address at the primary", func() error { return assign(t, s, api, "lb1") }, true},
		{"a node that fails", func() error {
			n := says(s, "repo2", "", "failed")
			n.Alive = "failed"
			s.watch.heard(admin.Status{Nodes: []admin.Node{n}})
			return nil
		}, false},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := s.watch.allServe(); got != step.want {
			t.Errorf("%s: got %v, want %v", step.name, got, step.want)
		}
	}
}

// assign gives the cluster's address to a node, and waits until the provider has done it.
func assign(t *testing.T, s *Site, api *godo.Client, node string) error {
	t.Helper()
	ip := s.roster.Roles[0].Address.ReservedIP
	id := s.watch.nodes[node].Machine
	if _, _, err := api.ReservedIPActions.Assign(t.Context(), ip.String(), id); err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.cloud.Reserved()[ip] != id {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			return t.Context().Err()
		}
	}
	return nil
}

func TestForwardsFindNodesAndPublishedNames(t *testing.T) {
	s, api := testSite(t)
	if _, _, err := api.Domains.Create(t.Context(), &godo.DomainCreateRequest{Name: "blog.test"}); err != nil {
		t.Fatal(err)
	}
	if a, err := s.resolve("www"); err == nil {
		t.Errorf("www before it is published: got %v, want an error", a)
	}
	for name, addr := range map[string]string{"www": "203.0.113.10", "apt": "198.51.100.7"} {
		if _, _, err := api.Domains.CreateRecord(t.Context(), "blog.test", &godo.DomainRecordEditRequest{Type: "A", Name: name, Data: addr, TTL: 60}); err != nil {
			t.Fatal(err)
		}
	}
	node := s.cloud.PrivateAddrs("repo1")
	for name, want := range map[string]string{
		"www": "203.0.113.10", "WWW.blog.test": "203.0.113.10", "apt.blog.test.": "198.51.100.7", "192.0.2.1": "192.0.2.1",
		"repo1": node[0].String(), "control.understudy.internal": gateway.String(),
	} {
		if a, err := s.resolve(name); err != nil || a.String() != want {
			t.Errorf("%s: got %v, %v; want %s", name, a, err, want)
		}
	}
	if a, err := s.resolve("nobody"); err == nil {
		t.Errorf("nobody: got %v, want an error", a)
	}
	if !slices.Equal(s.look("www.blog.test"), s.look("WWW.BLOG.TEST.")) {
		t.Error("capitals make a difference")
	}
}
