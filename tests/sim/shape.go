package sim

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"understudy/bootstrap/role"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// shape is a kind of cluster.
type shape struct {
	name      string
	share     int // of the episodes, in percent
	yaml      string
	beachhead bool
	ledger    bool // this episode has one
	policies  []decide.Policy
}

const head = `
cluster: c
domain: c.example
provider: {local: {region: x, size: s, image: i}}
dns: [{rfc2136: {server: "192.0.2.53:53", zone: c.example, key: k}}]
roles:
`

const eight = head + `
  lb: {nodes: "lb[1-2]", address: {reserved_ip: 203.0.113.10, names: [www]}}
  web: {nodes: "web[1-2]", names: [web]}
  mail: {nodes: "mail[1-2]", address: {vip: 10.0.0.25/24, interface: eth0, names: [mail]}, data: [{path: /var/vmail}], primary_units: [dovecot.service], health: {units: [dovecot.service]}}
  repo: {nodes: "repo[1-2]", names: [apt], data: [{path: /srv/apt}]}
`

const four = head + `
  lb: {nodes: "lb[1-2]", address: {vip: 10.0.0.10/24, interface: eth0, names: [www]}}
  db: {nodes: "db[1-2]", address: {reserved_ip: 203.0.113.25, names: [db]}, data: [{path: /var/db}], primary_units: [db.service], health: {units: [db.service]}}
`

var shapes = []shape{
	{name: "eight", share: 45, yaml: eight},
	{name: "eight and a beachhead", share: 10, yaml: eight, beachhead: true},
	{name: "four", share: 15, yaml: four},
	{name: "five", share: 10, yaml: head + `
  lb: {nodes: "lb[1-3]", address: {vip: 10.0.0.10/24, interface: eth0, names: [www]}}
  db: {nodes: "db[1-2]", address: {vip: 10.0.0.25/24, interface: eth0, names: [db]}, data: [{path: /var/db}]}
`},
	{name: "three", share: 10, yaml: head + `
  lb: {nodes: "lb[1-3]", address: {vip: 10.0.0.10/24, interface: eth0, names: [www]}}
`},
	{name: "two", share: 10, yaml: head + `
  lb: {nodes: "lb[1-2]", address: {vip: 10.0.0.10/24, interface: eth0, names: [www]}}
`},
}

// parsed are the shapes with their policies, made once.
var parsed = sync.OnceValue(func() []shape {
	all := slices.Clone(shapes)
	for i := range all {
		all[i].policies = policies(all[i])
	}
	return all
})

func policies(s shape) []decide.Policy {
	r, err := role.Parse("roles.yaml", []byte(s.yaml))
	if err == nil {
		var all []decide.Policy
		if all, err = policiesOf(r, s.beachhead); err == nil {
			return all
		}
	}
	panic(fmt.Sprintf("shape %s: %v", s.name, err))
}

// policiesOf are those of all members.
func policiesOf(r role.Roster, beachhead bool) ([]decide.Policy, error) {
	var all []decide.Policy
	for _, name := range r.Nodes() {
		p, err := decide.New(name, r)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	if !beachhead {
		return all, nil
	}
	outside := all[0]
	outside.Self = "beachhead"
	all = append(all, outside)
	for i := range all {
		all[i].Nodes, all[i].Beachhead = append(slices.Clone(all[i].Nodes), outside.Self), outside.Self
	}
	return all, nil
}

func (w *world) chooseShape() shape {
	if c := w.o.Cluster; c != nil {
		return shape{name: c.roster.Cluster, policies: c.policies, ledger: c.roster.Ledger != nil}
	}
	all := parsed()
	at := w.rng.IntN(100)
	chosen := all[0]
	for _, s := range all {
		if at -= s.share; at < 0 {
			chosen = s
			break
		}
	}
	for _, s := range all {
		if s.name == w.o.Shape {
			chosen = s
		}
	}
	chosen.ledger = w.chance(0.85)
	return chosen
}

func (s shape) private(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}) }
func (s shape) public(i int) netip.Addr  { return netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}) }

// populate makes the machines and starts the nodes.
func (w *world) populate() {
	n := len(w.shape.policies)
	w.links = make([][]link, n)
	w.ledger = ledger{objects: map[string]map[uint64]cluster.DutyRecord{}, duties: map[string]cluster.DutyRecord{},
		claims: map[string]cluster.Claim{}, claimants: map[string]uint64{}, intents: map[string]*intent{}, nonces: map[string]string{}, wishes: map[string]cluster.Wish{},
		beats: make([]moment, n), cut: make([]int, n)}
	w.cloud = cloud{register: map[string]*assignment{}}
	w.laws = newLaws()
	for i, p := range w.shape.policies {
		p.Off = w.o.Off
		w.links[i] = make([]link, n)
		node := &node{i: i, name: p.Self, policy: p, booted: true, fresh: true}
		node.clock = clock{base: cluster.Instant(1_000_000_000 + w.rng.Int64N(1_000_000_000_000)), ppm: w.rng.Int64N(10_001) - 5_000}
		for k := range p.Roles {
			if slices.Contains(p.Roles[k].Nodes, p.Self) {
				node.own = &p.Roles[k]
			}
			if p.Roles[k].Reserved.IsValid() {
				w.cloud.register[p.Roles[k].Name] = &assignment{}
			}
		}
		w.nodes = append(w.nodes, node)
	}
	for _, n := range w.nodes {
		w.newMachine(n)
		if w.shape.ledger {
			w.claimed(cluster.Claim{Node: n.name, Epoch: 1, Machine: n.machine})
		}
		w.start(n)
	}
}

// newMachine gives a node a machine with an empty disk. The beachhead's is another provider's.
func (w *world) newMachine(n *node) {
	if n.machine = w.made(n.name).id; n.own != nil {
		w.machine(n.machine).tags = []string{tag}
	}
	n.booted, n.fresh, n.disk, n.units, n.gate, n.memory = true, true, decide.Lasting{}, decide.UnitReading{}, gate{}, decide.Memory{}
}
