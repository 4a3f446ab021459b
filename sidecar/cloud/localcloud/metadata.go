package localcloud

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Metadata is the HTTP service that machines find at 169.254.169.254: what DigitalOcean tells a droplet about itself,
// by the same paths. Who asks is known by the source address alone, so it must be served where source addresses
// cannot be forged. It answers 404 to everybody who is not a machine.
//
// Paths and texts: https://docs.digitalocean.com/reference/api/metadata/. An index ends in a slash, and without it
// gets 301; a leaf is its bare value, without a newline at the end.
func (s *Server) Metadata() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			plain(w, http.StatusMethodNotAllowed, "405 Method Not Allowed")
			return
		}
		source, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			plain(w, http.StatusNotFound, "404 Not Found")
			return
		}
		about, ok := s.metadataOf(source.Addr())
		if !ok {
			s.log.Warn("metadata asked for by an unknown machine", "source", source.Addr())
			plain(w, http.StatusNotFound, "404 Not Found")
			return
		}
		about.serve(w, r)
	})
}

func plain(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // A client that has gone needs no answer.
}

// metadata is all that a machine may know about itself.
type metadata struct {
	machine    Machine
	plan       AddressPlan
	keys       []string
	vendorData string
	resolvers  []string
	held       netip.Addr // the reserved address, zero if none
	host       int
}

// metadataOf collects what the machine with the given address may know.
func (s *Server) metadataOf(source netip.Addr) (metadata, bool) {
	m, ok := s.MachineByAddr(source)
	if !ok {
		return metadata{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.droplets[m.ID]
	if !ok {
		return metadata{}, false // It went in between.
	}
	held, _ := s.heldBy(m.ID)
	return metadata{
		machine: d.machine.clone(), plan: s.opt.Addresses, keys: slices.Clone(d.keys), vendorData: s.opt.VendorData,
		resolvers: resolverList(s.opt.Resolvers), held: held, host: d.host,
	}, true
}

func (m metadata) serve(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if path == "/metadata/v1.json" {
		data, err := json.Marshal(m.document())
		if err != nil {
			panic(fmt.Sprintf("localcloud: metadata cannot be encoded: %v", err))
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(data)
		return
	}
	tree := m.tree()
	if value, ok := tree[path]; ok {
		plain(w, http.StatusOK, value)
		return
	}
	if _, ok := tree[path+"/"]; ok {
		http.Redirect(w, r, path+"/", http.StatusMovedPermanently)
		return
	}
	plain(w, http.StatusNotFound, "404 Not Found")
}

// leaf is one value and where it lies below /metadata/v1/.
type leaf struct {
	path, value string
}

// tree is every path and what it says: the leaves, and above them indexes that name what is below, in order.
func (m metadata) tree() map[string]string {
	const root = "/metadata/v1/"
	tree := map[string]string{}
	index := map[string][]string{}
	for _, l := range m.leaves() {
		parts := strings.Split(l.path, "/")
		for i, part := range parts {
			dir := root
			if i > 0 {
				dir += strings.Join(parts[:i], "/") + "/"
			}
			entry := part
			if i < len(parts)-1 {
				entry += "/"
			}
			if entry != "" && !slices.Contains(index[dir], entry) {
				index[dir] = append(index[dir], entry)
			}
		}
		if !strings.HasSuffix(l.path, "/") {
			tree[root+l.path] = l.value
		}
	}
	for dir, entries := range index {
		tree[dir] = strings.Join(entries, "\n")
	}
	// Tags are an index whose entries lead nowhere.
	tree[root+"tags/"] = strings.Join(m.machine.Tags, "\n")
	return tree
}

// leaves are in the order in which the indexes show them. The address of a reserved IP is there only while the
// machine holds one.
func (m metadata) leaves() []leaf {
	mc, p := m.machine, m.plan
	active := strconv.FormatBool(m.held.IsValid())
	all := []leaf{
		{"id", strconv.Itoa(mc.ID)},
		{"hostname", mc.Name},
		{"user-data", mc.UserData},
		{"vendor-data", m.vendorData},
		{"public-keys", strings.Join(m.keys, "\n")},
		{"region", mc.Region},
		{"interfaces/public/0/mac", m.mac(0)},
		{"interfaces/public/0/type", "public"},
		{"interfaces/public/0/ipv4/address", mc.Public.String()},
		{"interfaces/public/0/ipv4/netmask", netmask(p.Public)},
		{"interfaces/public/0/ipv4/gateway", host(p.Public, 1).String()},
		{"interfaces/public/0/anchor_ipv4/address", mc.Anchor.String()},
		{"interfaces/public/0/anchor_ipv4/netmask", netmask(p.Anchor)},
		{"interfaces/public/0/anchor_ipv4/gateway", host(p.Anchor, 1).String()},
		{"interfaces/private/0/mac", m.mac(1)},
		{"interfaces/private/0/type", "private"},
		{"interfaces/private/0/ipv4/address", mc.Private.String()},
		{"interfaces/private/0/ipv4/netmask", netmask(p.Private)},
		{"interfaces/private/0/ipv4/gateway", host(p.Private, 1).String()},
		{"dns/nameservers", strings.Join(m.resolvers, "\n")},
	}
	for _, name := range []string{"floating_ip", "reserved_ip"} {
		all = append(all, leaf{name + "/ipv4/active", active})
		if m.held.IsValid() {
			all = append(all, leaf{name + "/ipv4/ip_address", m.held.String()})
		}
	}
	return append(all, leaf{"tags/", ""}, leaf{"features/dhcp_enabled", "false"})
}

// mac is a locally administered address that follows from the machine's number.
func (m metadata) mac(network int) string {
	return fmt.Sprintf("02:00:%02x:00:%02x:%02x", network, m.host>>8, m.host&0xff)
}

// document is /metadata/v1.json. Members that have no value are left out, as DigitalOcean does.
func (m metadata) document() map[string]any {
	mc, p := m.machine, m.plan
	ipv4 := func(a netip.Addr, in netip.Prefix) map[string]string {
		return map[string]string{"ip_address": a.String(), "netmask": netmask(in), "gateway": host(in, 1).String()}
	}
	held := map[string]any{"active": m.held.IsValid()}
	if m.held.IsValid() {
		held["ip_address"] = m.held.String()
	}
	doc := map[string]any{
		"droplet_id": mc.ID, "hostname": mc.Name, "region": mc.Region,
		"vendor_data": m.vendorData,
		"public_keys": append([]string{}, m.keys...),
		"interfaces": map[string]any{
			"public": []any{map[string]any{
				"ipv4": ipv4(mc.Public, p.Public), "anchor_ipv4": ipv4(mc.Anchor, p.Anchor), "mac": m.mac(0), "type": "public",
			}},
			"private": []any{map[string]any{"ipv4": ipv4(mc.Private, p.Private), "mac": m.mac(1), "type": "private"}},
		},
		"floating_ip": map[string]any{"ipv4": held},
		"reserved_ip": map[string]any{"ipv4": held},
		"dns":         map[string]any{"nameservers": m.resolvers},
		"tags":        append([]string{}, mc.Tags...),
		"features":    map[string]bool{"dhcp_enabled": false},
	}
	if mc.UserData != "" {
		doc["user_data"] = mc.UserData
	}
	return doc
}
