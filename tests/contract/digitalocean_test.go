package contract

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	mdns "github.com/miekg/dns"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud"
	"understudy/sidecar/cloud/digitalocean"
	"understudy/sidecar/cloud/localcloud"
	"understudy/sidecar/cluster"
	"understudy/sidecar/dns"
)

// ours is the sidecar's own client of the account, for the cluster blog.
func (a *account) ours() *digitalocean.Client {
	a.t.Helper()
	c, err := digitalocean.New(digitalocean.Config{Endpoint: a.api.URL, Token: secrets.NewSecret(token), Tag: "blog", Transport: a.rec})
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// book reserves an address.
func (a *account) book() netip.Addr {
	a.t.Helper()
	ip := must[*godo.ReservedIP](a.t)(a.do.ReservedIPs.Create(a.t.Context(), &godo.ReservedIPCreateRequest{Region: "lon1"}))
	return netip.MustParseAddr(ip.IP)
}

// requests counts those of a method and path that were sent.
func (a *account) requests(want string) int {
	a.rec.mu.Lock()
	defer a.rec.mu.Unlock()
	n := 0
	for _, sent := range a.rec.sent {
		if sent == want {
			n++
		}
	}
	return n
}

// settled waits until nobody moves the address any more and returns who has it.
func (a *account) settled(ip netip.Addr) string {
	a.t.Helper()
	var h cluster.AddressHolder
	a.until("address settled", func() bool {
		var err error
		h, err = a.ours().Holder(a.t.Context(), ip)
		return err == nil && !h.Pending
	})
	return h.Machine
}

func ids(machines []cluster.Machine) []string {
	var all []string
	for _, m := range machines {
		all = append(all, m.ID)
	}
	return all
}

func TestProviderListsTheClustersMachinesFromAllPages(t *testing.T) {
	a := open(t, func(o *localcloud.Options) { o.DropletLimit = 220 })
	c := a.ours()
	if got, err := c.List(t.Context()); err != nil || len(got) != 0 {
		t.Fatalf("got %v, %v, want none yet", got, err)
	}
	var want []string
	for i := range 205 {
		d, _, err := a.do.Droplets.Create(t.Context(), created(fmt.Sprintf("web%d", i), "blog"))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, strconv.Itoa(d.ID))
	}
	other := a.boot("shop1", "shop")
	a.active(mustAtoi(t, want[204]))
	got, err := c.List(t.Context())
	if err != nil || !slices.Equal(ids(got), want) {
		t.Fatalf("got %d machines, %v, want %d in order", len(got), err, len(want))
	}
	m := got[204]
	if m.Name != "web204" || !slices.Contains(m.Tags, "blog") || m.Power != cluster.PowerOn || !m.Private.IsValid() || !m.Public.IsValid() || m.Created.IsZero() {
		t.Errorf("got %+v, want all of it", m)
	}
	if slices.Contains(ids(got), strconv.Itoa(other.ID)) {
		t.Error("the list has a machine of another cluster")
	}
}

func mustAtoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestProviderTellsAMachinesLife(t *testing.T) {
	a := open(t, nil)
	c := a.ours()
	d := a.boot("web1", "blog")
	id := strconv.Itoa(d.ID)
	power := func() cluster.Power {
		t.Helper()
		m, err := c.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return m.Power
	}
	if got := power(); got != cluster.PowerOn {
		t.Errorf("got %v, want on", got)
	}
	if err := c.PowerOff(t.Context(), id, "web1"); err != nil {
		t.Fatal(err)
	}
	a.until("machine off", func() bool { return power() == cluster.PowerOff })
	if err := c.PowerOff(t.Context(), id, "web1"); err != nil {
		t.Errorf("off already: got %v, want nil", err)
	}
	if _, err := a.do.Droplets.Delete(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	a.until("machine gone", func() bool { return power() == cluster.PowerGone })
	if err := c.PowerOff(t.Context(), id, "web1"); !errors.Is(err, cloud.ErrGone) {
		t.Errorf("gone: got %v, want ErrGone", err)
	}
}

// TestMachineThatTurnsOffBetweenTheQuestionAndTheCallIsOff keeps the former status in the answer, so that the call comes too late.
func TestMachineThatTurnsOffBetweenTheQuestionAndTheCallIsOff(t *testing.T) {
	a := open(t, nil)
	d := a.boot("web1", "blog")
	a.done(must[*godo.Action](t)(a.do.DropletActions.PowerOff(t.Context(), d.ID)).ID)
	a.server.Inject(localcloud.Fault{Kind: localcloud.StatusLag, Delay: time.Hour})
	if err := a.ours().PowerOff(t.Context(), strconv.Itoa(d.ID), "web1"); err != nil {
		t.Errorf("got %v, want nil", err)
	}
	if n := a.requests(fmt.Sprintf("POST /v2/droplets/%d/actions", d.ID)); n != 2 {
		t.Errorf("got %d requests, want that it was asked", n)
	}
}

func TestProviderMovesAnAddress(t *testing.T) {
	a := open(t, nil)
	c, ip := a.ours(), a.book()
	lb1, lb2 := strconv.Itoa(a.boot("lb1", "blog").ID), strconv.Itoa(a.boot("lb2", "blog").ID)
	if got := a.settled(ip); got != "" {
		t.Errorf("got holder %s, want nobody", got)
	}
	for _, id := range []string{lb1, lb2, lb1} {
		if err := c.AssignAddress(t.Context(), ip, id); err != nil {
			t.Fatal(err)
		}
		if got := a.settled(ip); got != id {
			t.Errorf("got holder %s, want %s", got, id)
		}
	}
	// DigitalOcean refuses this one.
	if err := c.AssignAddress(t.Context(), ip, lb1); err != nil {
		t.Errorf("to its holder: got %v, want nil", err)
	}
	other := a.book()
	if err := c.AssignAddress(t.Context(), other, lb1); !errors.Is(err, cloud.ErrHolds) {
		t.Errorf("a second address: got %v, want ErrHolds", err)
	}
	if err := c.AssignAddress(t.Context(), ip, "1"); !errors.Is(err, cloud.ErrGone) {
		t.Errorf("to a missing machine: got %v, want ErrGone", err)
	}
	missing := netip.MustParseAddr("203.0.113.77")
	if err := c.AssignAddress(t.Context(), missing, lb2); err == nil || errors.Is(err, cloud.ErrGone) {
		t.Errorf("a missing address: got %v, want another error", err)
	}
	if got, err := c.Holder(t.Context(), missing); err == nil {
		t.Errorf("a missing address: got holder %+v, want an error", got)
	}
}

func TestAddressThatMovesIsPending(t *testing.T) {
	a := open(t, nil)
	c, ip := a.ours(), a.book()
	lb1, lb2 := strconv.Itoa(a.boot("lb1", "blog").ID), strconv.Itoa(a.boot("lb2", "blog").ID)
	slow := a.server.Inject(localcloud.Fault{Kind: localcloud.SlowAction, Delay: time.Hour})
	if err := c.AssignAddress(t.Context(), ip, lb1); err != nil {
		t.Fatal(err)
	}
	slow.Lift()
	if h, err := c.Holder(t.Context(), ip); err != nil || !h.Pending {
		t.Errorf("got %+v, %v, want pending", h, err)
	}
	for _, id := range []string{lb1, lb2} {
		if err := c.AssignAddress(t.Context(), ip, id); !errors.Is(err, cloud.ErrPending) {
			t.Errorf("to %s: got %v, want ErrPending", id, err)
		}
	}
}

// TestFaultsOfReadingAreErrorsOrTheTruth injects every fault that touches a reading, once each: no call takes it for a
// machine that is gone, an address without a holder, or a zone without records.
func TestFaultsOfReadingAreErrorsOrTheTruth(t *testing.T) {
	faults := map[localcloud.FaultKind]error{
		localcloud.RateLimited: &cloud.RateLimitedError{}, localcloud.ServerError: nil, localcloud.Unauthorized: cloud.ErrDenied,
		localcloud.Forbidden: cloud.ErrDenied, localcloud.LostAnswer: nil, localcloud.HangUp: nil,
	}
	a := open(t, nil)
	c := a.ours()
	id, ip := strconv.Itoa(a.boot("lb1", "blog").ID), a.book()
	if err := c.AssignAddress(t.Context(), ip, id); err != nil {
		t.Fatal(err)
	}
	a.settled(ip)
	must[*godo.Domain](t)(a.do.Domains.Create(t.Context(), &godo.DomainCreateRequest{Name: "blog.example", IPAddress: "203.0.113.10"}))
	reads := map[string]func() error{
		"List":   func() error { _, err := c.List(t.Context()); return err },
		"Get":    func() error { _, err := c.Get(t.Context(), id); return err },
		"Holder": func() error { _, err := c.Holder(t.Context(), ip); return err },
		"Records": func() error {
			_, err := c.Records("blog.example").List(t.Context())
			return err
		},
	}
	for kind, want := range faults {
		for name, read := range reads {
			in := a.server.Inject(localcloud.Fault{Kind: kind, Match: localcloud.Match{Method: http.MethodGet}, Delay: 7 * time.Second})
			err := read()
			// A transport of Go's own asks a second time when a kept connection is closed before the answer; that is safe for GET.
			if in.Lift(); err == nil || in.Hits() < 1 {
				t.Errorf("%s, %s: got %v after %d hits, want an error", kind, name, err, in.Hits())
			}
			if limited, ok := errors.AsType[*cloud.RateLimitedError](err); kind == localcloud.RateLimited && (!ok || limited.RetryAfter != 7*time.Second) {
				t.Errorf("%s, %s: got %v, want to be told to wait 7 s", kind, name, err)
			}
			if want != nil && kind != localcloud.RateLimited && !errors.Is(err, want) {
				t.Errorf("%s, %s: got %v, want %v", kind, name, err, want)
			}
			if err := read(); err != nil {
				t.Errorf("after %s, %s: %v", kind, name, err)
			}
		}
	}
	empty := a.server.Inject(localcloud.Fault{Kind: localcloud.EmptyList})
	if got, err := c.Records("blog.example").List(t.Context()); err == nil {
		t.Errorf("an empty list of records: got %v, want an error", got)
	}
	empty.Lift()
	if got, err := c.Records("other.example").List(t.Context()); err == nil {
		t.Errorf("a missing zone: got %v, want an error", got)
	}
}

// TestFaultsOfChangingAreAskedOnceAndMayHaveHappened injects what a change can meet.
func TestFaultsOfChangingAreAskedOnceAndMayHaveHappened(t *testing.T) {
	cases := []struct {
		kind     localcloud.FaultKind
		want     error
		accepted bool // no error
		happens  bool
	}{
		{localcloud.PendingEvent, cloud.ErrPending, false, false},
		{localcloud.RateLimited, nil, false, false},
		{localcloud.ServerError, nil, false, false},
		{localcloud.Forbidden, cloud.ErrDenied, false, false},
		{localcloud.LostAnswer, nil, false, true},
		{localcloud.HangUp, nil, false, true},
		{localcloud.ActionErrored, nil, true, false},
		{localcloud.SlowAction, nil, true, true},
	}
	for _, c := range cases {
		t.Run(string(c.kind), func(t *testing.T) {
			a := open(t, nil)
			id, ip := strconv.Itoa(a.boot("lb1", "blog").ID), a.book()
			check := func(err error, path string) {
				t.Helper()
				if (err == nil) != c.accepted || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("got %v, want accepted %v, %v", err, c.accepted, c.want)
				}
				if n := a.requests("POST " + path); n != 1 {
					t.Errorf("got %d POSTs to %s, want one", n, path)
				}
			}
			inject := func() *localcloud.Injection {
				return a.server.Inject(localcloud.Fault{Kind: c.kind, Match: localcloud.Match{Method: http.MethodPost}, Delay: 20 * time.Millisecond})
			}
			in := inject()
			check(a.ours().AssignAddress(t.Context(), ip, id), "/v2/reserved_ips/"+ip.String()+"/actions")
			in.Lift()
			if got := a.settled(ip); (got == id) != c.happens {
				t.Errorf("got holder %q, want moved %v", got, c.happens)
			}
			in = inject()
			check(a.ours().PowerOff(t.Context(), id, "lb1"), "/v2/droplets/"+id+"/actions")
			in.Lift()
			off := func() bool { m, err := a.ours().Get(t.Context(), id); return err == nil && m.Power == cluster.PowerOff }
			if c.happens {
				a.until("machine off", off)
			} else if off() {
				t.Error("the machine is off")
			}
		})
	}
}

// TestListsThatLagAreNoProofOfAbsence shows what a list can leave out and keep, and that asking by ID tells.
func TestListsThatLagAreNoProofOfAbsence(t *testing.T) {
	a := open(t, nil)
	c := a.ours()
	d := a.boot("web1", "blog")
	id := strconv.Itoa(d.ID)
	for _, kind := range []localcloud.FaultKind{localcloud.ListLag, localcloud.PartialList, localcloud.EmptyList} {
		in := a.server.Inject(localcloud.Fault{Kind: kind, Delay: time.Hour, Share: 0.5, Match: localcloud.Match{Path: "/v2/droplets"}})
		got, err := c.List(t.Context())
		if err != nil || slices.Contains(ids(got), id) {
			t.Errorf("%s: got %v, %v, want a list without the machine", kind, got, err)
		}
		if m, err := c.Get(t.Context(), id); err != nil || m.Power != cluster.PowerOn {
			t.Errorf("%s: got %+v, %v, want the machine, on", kind, m, err)
		}
		in.Lift()
	}
	a.server.Inject(localcloud.Fault{Kind: localcloud.DeletedListed, Delay: time.Hour})
	if _, err := a.do.Droplets.Delete(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	a.until("machine gone by ID", func() bool { m, err := c.Get(t.Context(), id); return err == nil && m.Power == cluster.PowerGone })
	if got, err := c.List(t.Context()); err != nil || !slices.Contains(ids(got), id) {
		t.Errorf("got %v, %v, want the gone machine still listed", got, err)
	}
}

func TestRecordsKeepTheirFormThroughTheAPI(t *testing.T) {
	a := open(t, nil)
	must[*godo.Domain](t)(a.do.Domains.Create(t.Context(), &godo.DomainCreateRequest{Name: "blog.example"}))
	r := a.ours().Records("Blog.Example.")
	want := []cluster.Record{
		{Name: "www", Type: "A", Value: "203.0.113.10"}, {Name: "@", Type: "AAAA", Value: "2001:db8::1"},
		{Name: "@", Type: "MX", Value: "mail.blog.example.", Pref: 10}, {Name: "self", Type: "MX", Value: "blog.example.", Pref: 0},
	}
	for i, w := range want {
		e, err := r.Create(t.Context(), w, 45*time.Second)
		if err != nil || e.Record != w || e.TTL != 45*time.Second || e.ID == "" {
			t.Fatalf("create: got %+v, %v, want %+v", e, err, w)
		}
		if w.Type == "MX" {
			e.Pref += 5
			want[i].Pref += 5
		}
		e.TTL = time.Minute
		if err := r.Update(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	must[*godo.DomainRecord](t)(a.do.Domains.CreateRecord(t.Context(), "blog.example", &godo.DomainRecordEditRequest{Type: "MX", Name: "apex", Data: "@"}))
	must[*godo.DomainRecord](t)(a.do.Domains.CreateRecord(t.Context(), "blog.example", &godo.DomainRecordEditRequest{Type: "TXT", Name: "www", Data: "hello"}))
	want = append(want, cluster.Record{Name: "apex", Type: "MX", Value: "blog.example."})
	got, err := r.List(t.Context())
	if err != nil || len(got) != len(want) {
		t.Fatalf("got %+v, %v, want %d records", got, err, len(want))
	}
	for i, e := range got {
		if e.Record != want[i] || i < 4 && e.TTL != time.Minute {
			t.Errorf("got %+v, want %+v", e, want[i])
		}
	}
	for range 2 { // the second time it is gone already
		if err := r.Delete(t.Context(), got[0].ID); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if err := r.Update(t.Context(), got[0]); !errors.Is(err, cloud.ErrGone) {
		t.Errorf("update of a deleted record: got %v, want ErrGone", err)
	}
}

// zoneOf makes the domain and our writer of it.
func (a *account) zoneOf(names ...string) *dns.Records {
	a.t.Helper()
	z, err := dns.NewRecords(dns.RecordsConfig{Records: a.ours().Records("blog.example"), Own: names})
	if err != nil {
		a.t.Fatal(err)
	}
	return z
}

// TestPublishingSurvivesEveryFaultAndNeverEmptiesAName writes a zone over and over in a storm of all faults, and watches through
// the API that www always has an address and that the zone is what is wanted in the end, without duplicates.
func TestPublishingSurvivesEveryFaultAndNeverEmptiesAName(t *testing.T) {
	a := open(t, func(o *localcloud.Options) { o.Seed = 7; o.Rate = localcloud.RateLimit{} })
	ctx := t.Context()
	must[*godo.Domain](t)(a.do.Domains.Create(ctx, &godo.DomainCreateRequest{Name: "blog.example"}))
	must[*godo.DomainRecord](t)(a.do.Domains.CreateRecord(ctx, "blog.example", &godo.DomainRecordEditRequest{Type: "A", Name: "www", Data: "203.0.113.1"}))
	must[*godo.DomainRecord](t)(a.do.Domains.CreateRecord(ctx, "blog.example", &godo.DomainRecordEditRequest{Type: "TXT", Name: "www", Data: "kept"}))
	must[*godo.DomainRecord](t)(a.do.Domains.CreateRecord(ctx, "blog.example", &godo.DomainRecordEditRequest{Type: "A", Name: "shop", Data: "198.51.100.7"}))
	z := a.zoneOf("www", "web", "@")
	var storm []*localcloud.Injection
	for _, f := range localcloud.Storm(0.12, time.Millisecond) {
		f.Match.Path = "/v2/domains/*/records*"
		storm = append(storm, a.server.Inject(f))
		f.Match.Path = "/v2/domains/*/records/*"
		storm = append(storm, a.server.Inject(f))
	}
	done := make(chan struct{})
	var g sync.WaitGroup
	g.Go(func() { a.watch(done) })
	var want []cluster.Record
	failed := 0
	for i := range 150 {
		want = []cluster.Record{
			{Name: "www", Type: "A", Value: fmt.Sprintf("203.0.113.%d", i%2+1)},
			{Name: "web", Type: "A", Value: fmt.Sprintf("198.51.100.%d", i%3+1)}, {Name: "web", Type: "A", Value: "198.51.100.9"},
			{Name: "@", Type: "MX", Value: "mail.blog.example.", Pref: 10},
		}
		if err := z.Update(ctx, dns.Change{Epoch: 1, Own: []string{"www", "web", "@"}, Want: want}); err != nil {
			failed++
		}
	}
	for _, in := range storm {
		in.Lift()
	}
	if failed == 0 {
		t.Error("nothing has failed, so this has shown nothing")
	}
	if err := z.Update(ctx, dns.Change{Epoch: 1, Own: []string{"www", "web", "@"}, Want: want}); err != nil {
		t.Fatal(err)
	}
	close(done)
	g.Wait()
	var got []string
	for _, r := range must[[]godo.DomainRecord](t)(a.do.Domains.Records(ctx, "blog.example", &godo.ListOptions{PerPage: 200})) {
		if r.Type != "NS" && r.Type != "SOA" {
			got = append(got, r.Type+" "+r.Name+" "+r.Data)
		}
	}
	slices.Sort(got)
	if text := strings.Join(got, "; "); text != "A shop 198.51.100.7; A web 198.51.100.3; A web 198.51.100.9; A www 203.0.113.2; MX @ mail.blog.example; TXT www kept" {
		t.Errorf("got %s", text)
	}
}

// answer takes what a DNS server answers, without a network.
type answer struct {
	mdns.ResponseWriter
	msg *mdns.Msg
}

func (w *answer) RemoteAddr() net.Addr       { return &net.TCPAddr{} }
func (w *answer) WriteMsg(m *mdns.Msg) error { w.msg = m; return nil }

// addressesOf counts the addresses that the account's DNS server has for a name.
func (a *account) addressesOf(name string) int {
	var w answer
	a.server.DNS().ServeDNS(&w, new(mdns.Msg).SetQuestion(name, mdns.TypeA))
	return len(w.msg.Answer)
}

// watch reads the zone by the server's own DNS, which no fault touches, until done is closed.
func (a *account) watch(done <-chan struct{}) {
	looked := 0
	for {
		if a.addressesOf("www.blog.example.") == 0 {
			a.t.Error("www had no address")
		}
		looked++
		select {
		case <-done:
			if looked < 100 {
				a.t.Errorf("looked %d times only", looked)
			}
			return
		default:
		}
	}
}
