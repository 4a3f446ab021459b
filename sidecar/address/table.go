//go:build linux

package address

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// tableName is the name of our tables, one in each of the families inet, arp and netdev.
const tableName = "understudy"

// table is the ruleset as one opener has put it into the kernel.
type table struct {
	inet, arp, netdev *nftables.Table
	// Sets of the families. gated are the addresses there is a gate for, open those whose gate is open, draining those that
	// take no new connections, advertised the IPv6 addresses whose neighbour advertisements are gated.
	gated4, gated6, open4, open6, draining4, draining6, advertised *nftables.Set
	arpGated, arpOpen, devGated, devOpen                           *nftables.Set
	tickets                                                        *nftables.Set
}

// newTable names everything. The nonce tells this opener's tickets from another's.
func newTable(nonce uint32) *table {
	t := &table{
		inet:   &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName},
		arp:    &nftables.Table{Family: nftables.TableFamilyARP, Name: tableName},
		netdev: &nftables.Table{Family: nftables.TableFamilyNetdev, Name: tableName},
	}
	ipv4, ipv6 := nftables.TypeIPAddr, nftables.TypeIP6Addr
	set := func(in *nftables.Table, name string, of nftables.SetDatatype, timeout bool) *nftables.Set {
		return &nftables.Set{Table: in, Name: name, KeyType: of, HasTimeout: timeout}
	}
	t.gated4, t.gated6 = set(t.inet, "gated4", ipv4, false), set(t.inet, "gated6", ipv6, false)
	t.open4, t.open6 = set(t.inet, "open4", ipv4, true), set(t.inet, "open6", ipv6, true)
	t.draining4, t.draining6 = set(t.inet, "draining4", ipv4, false), set(t.inet, "draining6", ipv6, false)
	t.advertised = set(t.inet, "advertised", ipv6, false)
	t.arpGated, t.arpOpen = set(t.arp, "gated", ipv4, false), set(t.arp, "open", ipv4, true)
	t.devGated, t.devOpen = set(t.netdev, "gated", ipv4, false), set(t.netdev, "open", ipv4, true)
	t.tickets = set(t.inet, fmt.Sprintf("tickets-%08x", nonce), nftables.TypeMark, true)
	return t
}

// tables are those of the table's families.
func (t *table) tables() []*nftables.Table { return []*nftables.Table{t.inet, t.arp, t.netdev} }

func (t *table) sets() []*nftables.Set {
	return []*nftables.Set{
		t.gated4, t.gated6, t.open4, t.open6, t.draining4, t.draining6, t.advertised,
		t.arpGated, t.arpOpen, t.devGated, t.devOpen, t.tickets,
	}
}

// install replaces in one batch whatever there is by rules for specs with every gate closed. There is no moment without
// rules, and none at which a gate is open that was closed.
func (t *table) install(conn *nftables.Conn, specs []Spec) error {
	for _, tab := range t.tables() {
		conn.AddTable(tab) // so that deleting it cannot fail
		conn.DelTable(tab)
		conn.AddTable(tab)
	}
	for i, s := range t.sets() {
		s.ID = uint32(i + 1) // its number within the batch; the library's own numbering is not safe for two at a time
		if err := conn.AddSet(s, t.members(s, specs)); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	t.rules(conn, specs)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write the rules of the gates: %w", err)
	}
	return nil
}

// members are the addresses that are in a set for as long as the table stands.
func (t *table) members(s *nftables.Set, specs []Spec) []nftables.SetElement {
	var of []netip.Addr
	for _, spec := range specs {
		link := spec.Link.Addr() // invalid if Link is
		switch s {
		case t.gated4:
			of = append(of, only(spec.addresses(), netip.Addr.Is4)...)
		case t.gated6:
			of = append(of, only(spec.addresses(), netip.Addr.Is6)...)
		case t.arpGated, t.devGated:
			of = append(of, only([]netip.Addr{link}, netip.Addr.Is4)...)
		case t.advertised:
			of = append(of, only([]netip.Addr{link}, netip.Addr.Is6)...)
		}
	}
	elements := make([]nftables.SetElement, len(of))
	for i, ip := range of {
		elements[i].Key = ip.AsSlice()
	}
	return elements
}

func only(ips []netip.Addr, is func(netip.Addr) bool) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(ips), func(ip netip.Addr) bool { return !is(ip) })
}

// opens are the sets whose element opens the gate of an address; draining is where it takes no new connections.
func (t *table) opens(ip netip.Addr, link linkAddress) []*nftables.Set {
	switch {
	case ip.Is6():
		return []*nftables.Set{t.open6}
	case bool(link):
		return []*nftables.Set{t.open4, t.arpOpen, t.devOpen}
	}
	return []*nftables.Set{t.open4}
}

func (t *table) draining(ip netip.Addr) *nftables.Set {
	if ip.Is6() {
		return t.draining6
	}
	return t.draining4
}

// linkAddress tells an address that we put on a link from an anchor, which is the machine's own.
type linkAddress bool

// linkAddresses reads from the tables that stand in the kernel the link addresses they were made for.
func linkAddresses(conn *nftables.Conn, t *table) ([]netip.Addr, error) {
	var found []netip.Addr
	for _, s := range []*nftables.Set{t.arpGated, t.advertised} {
		there, err := standing(conn, s.Table)
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", s.Name, err)
		}
		for _, e := range elements {
			ip, ok := netip.AddrFromSlice(e.Key)
			if !ok {
				return nil, fmt.Errorf("read set %s: an address of %d bytes", s.Name, len(e.Key))
			}
			found = append(found, ip)
		}
	}
	return found, nil
}

// standing tells whether a table of that name is in the kernel, whoever put it there.
func standing(conn *nftables.Conn, t *nftables.Table) (bool, error) {
	tables, err := conn.ListTablesOfFamily(t.Family)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(other *nftables.Table) bool { return other.Name == t.Name }), nil
}
