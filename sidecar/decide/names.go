package decide

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"understudy/sidecar/cluster"
)

// publish keeps the zones showing who serves. The coordinator does, and only for names that roles.yaml gives to a role. A name
// whose role has nobody serving stays as it is: an empty answer helps no one.
func (t *turn) publish() {
	s := t.duties[cluster.Coordinator]
	d := duty{name: cluster.Coordinator}
	if s.Hold.State != cluster.Held || t.Orders.Pause || !t.mayAct(d, &s) {
		return
	}
	for _, z := range t.p.Zones {
		r, read := t.Zones[z.Key]
		if !read && !t.p.Off.Absent || t.Now.Since(r.At) > republish {
			t.act(ReadZone{Reason: Reason("what does " + z.Want.Zone + " publish?"), Zone: z.Key})
		}
		t.in(t.p.Timings.Reconcile)
		if !read && !t.p.Off.Absent {
			t.blocked("publishing in "+z.Key, "it could not be read yet")
			continue
		}
		own, want := t.wantedRecords(z.Want)
		if len(own) == 0 || slices.Equal(ours(r.Records, own, want), want) {
			continue
		}
		t.act(UpdateZone{
			Reason: Reason(fmt.Sprintf("%s should publish %s", z.Want.Zone, summary(want))),
			Expect: Expect{Duty: cluster.Coordinator, Epoch: s.Hold.Epoch},
			Zone:   z.Key, Epoch: s.Hold.Epoch, Own: own, Want: want,
		})
	}
}

// wantedRecords are the records a zone should have for the names it is to have them for, both sorted.
func (t *turn) wantedRecords(n Naming) (own []string, want []cluster.Record) {
	add := func(name string, addrs []netip.Addr) {
		if len(addrs) == 0 {
			return
		}
		own = append(own, n.relative(name))
		for _, a := range addrs {
			kind := "A"
			if a.Is6() {
				kind = "AAAA"
			}
			want = append(want, cluster.Record{Name: n.relative(name), Type: kind, Value: a.String()})
		}
	}
	for _, r := range t.p.Roles {
		if a := r.address(); a.IsValid() {
			for _, name := range r.AddressNames {
				add(name, []netip.Addr{a})
			}
			if r.MX > 0 && len(r.AddressNames) > 0 {
				own = append(own, n.relative("@"))
				want = append(want, cluster.Record{Name: n.relative("@"), Type: "MX", Value: n.absolute(r.AddressNames[0]), Pref: r.MX})
			}
		}
		for _, name := range r.Names {
			add(name, t.serving(r))
		}
	}
	slices.Sort(own)
	sortRecords(want)
	return slices.Compact(own), slices.Compact(want)
}

// address is the address that moves with the role's duty, invalid if there is none.
func (r Role) address() netip.Addr {
	if r.Reserved.IsValid() {
		return r.Reserved
	}
	if r.Link.IsValid() {
		return r.Link.Addr()
	}
	return netip.Addr{}
}

// serving are the addresses of the role's nodes that serve.
func (t *turn) serving(r Role) []netip.Addr {
	var all []netip.Addr
	for _, k := range r.Nodes {
		said, phase := t.said(k), t.said(k).Phase
		private, public := said.Private, said.Public
		if k == t.p.Self {
			phase, private, public = t.phase(), t.Private, t.Public
		}
		if phase != cluster.Serving && phase != cluster.Draining {
			continue
		}
		if public.IsValid() {
			all = append(all, public)
		} else if private.IsValid() {
			all = append(all, private)
		}
	}
	return all
}

// relative writes a name of roles.yaml as the zone writes it; absolute with the final dot.
func (n Naming) relative(name string) string {
	full := strings.TrimSuffix(n.absolute(name), ".")
	if full == n.Zone {
		return "@"
	}
	return strings.TrimSuffix(full, "."+n.Zone)
}

func (n Naming) absolute(name string) string {
	if name == "@" {
		return n.Domain + "."
	}
	return name + "." + n.Domain + "."
}

// ours are the records that we have a word in, sorted: addresses of the names in own, and mail exchangers of those that want one.
func ours(all []cluster.Record, own []string, want []cluster.Record) []cluster.Record {
	mail := func(name string) bool {
		return slices.ContainsFunc(want, func(w cluster.Record) bool { return w.Name == name && w.Type == "MX" })
	}
	var some []cluster.Record
	for _, r := range all {
		if slices.Contains(own, r.Name) && (r.Type == "A" || r.Type == "AAAA" || r.Type == "MX" && mail(r.Name)) {
			some = append(some, r)
		}
	}
	sortRecords(some)
	return some
}

func sortRecords(all []cluster.Record) {
	slices.SortFunc(all, func(a, b cluster.Record) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Value, b.Value), cmp.Compare(a.Pref, b.Pref))
	})
}

// summary is a list of records for a sentence, not longer than a line.
func summary(all []cluster.Record) string {
	var b strings.Builder
	for i, r := range all {
		if i == 6 {
			fmt.Fprintf(&b, " and %d more", len(all)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s", r.Name, r.Value)
	}
	return b.String()
}

// republish is how long a zone may go unread.
const republish = 30 * time.Second
