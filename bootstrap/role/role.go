// Package role knows who should exist. It turns the control repo's roles.yaml into a Roster, and a
// hostname into the role that machine has to play. That mapping is all a fresh machine starts from,
// so the package promises three things: the same bytes always give the same Roster; a Roster that
// was returned without an error holds (one role per hostname, one owner per name and address, two
// nodes per role, no circle among the needs); and a file with problems gives all of them at once,
// each with its line and column, and no Roster at all.
//
// It refuses whatever it does not know: unknown keys, YAML's anchors, aliases, merge keys and tags,
// a second document. It reads no file and no clock; callers hand it bytes. Nothing here knows the
// name of a particular role. The format is described in the comments of this repository's own
// roles.yaml.
package role

import (
	"fmt"
	"net/netip"
	"strings"
)

// Roster is the content of a valid roles.yaml. It is a plain value: every list is in the order of
// the file, patterns are written out. Whoever holds one must not change its slices. The zero Roster
// has no roles and knows no host.
type Roster struct {
	Cluster   string // a DNS label; the tag of the cluster's machines and part of <node>.<cluster>.internal
	Domain    string // the public domain, lower case, without a final dot
	Provider  Provider
	Ledger    *Ledger // nil: the cluster has no ledger
	DNS       []DNS   // empty: nobody publishes the names
	Roles     []Role  // at least one
	Beachhead *Beachhead
	Timings   Timings
	Drift     Drift
}

// Provider says where machines are hired, and of what kind.
type Provider struct {
	Kind    string   // digitalocean, hetzner or local
	Region  string   // the provider's slug
	Sizes   []string // the provider's slugs, the preferred first; at least one
	Image   string   // name or slug of the image every machine starts from
	SSHKeys []string // names of keys for the operator's own access; may be empty
}

// Ledger is the S3-compatible store that outlives the nodes. Its keys are in secrets.age.
type Ledger struct {
	Endpoint string // https URL, or http on a loopback or private address
	Bucket   string
	Region   string // empty: whatever the store takes as its default
}

// DNS is one place the cluster's names are published in.
type DNS struct {
	Kind      string // rfc2136 or digitalocean
	Zone      string // equal to the Roster's Domain or a parent of it
	Server    string // rfc2136 only: host:port
	Key       string // rfc2136 only: name of the TSIG key in secrets.age
	Algorithm string // rfc2136 only: TSIG algorithm (RFC 8945, section 6), default hmac-sha256
}

// Beachhead is the node outside, at another provider, which rebuilds a cluster that was lost whole.
type Beachhead struct {
	Provider           string    // kind of the provider it lives at
	Machines           *Provider // what it hires there; nil: it can rebuild on itself only
	WhenProviderSilent Silence
}

// Silence says what the beachhead does when the nodes' provider has stopped answering, which is a
// weaker sign than its saying that the machines are gone.
type Silence string

// The two answers to a silent provider.
const (
	Ask  Silence = "ask"  // wait for a person; the default
	Move Silence = "move" // rebuild elsewhere unasked
)

// Role is one Puppet role and the nodes that play it.
type Role struct {
	Name    string   // lower-case letters and digits: it is a Puppet class segment and a DNS label
	Nodes   []string // hostnames; the first is where the role starts out
	Address *Address // nil: the role has no address of its own
	Names   []string // relative to the domain, "@" for the domain itself; for every node that serves
	Data    []Data

	// PrimaryUnits write the data, so they run only where the duty is. Puppet configures them and
	// never starts them.
	PrimaryUnits []string

	Journal *Journal // nil: the role's units take no mail that must not be lost

	Health        Health // of a node that serves; with HasPrimary, of the primary
	StandbyHealth Health // of the other node of a role with HasPrimary
	Needs         []Need
	Publish       string // absolute path of the program on the primary that takes a published file on stdin
	Alone         bool   // "understudy: none": one node, and nobody takes over

	// Drain is the argv of a program that is run on the primary when its duty is about to move, so that its services
	// finish what they have begun and tell clients to come again on a new connection. Empty: there is none.
	Drain []string
}

// HasPrimary reports whether one node of the role has a duty the others do not: it holds the
// address or writes the data.
func (r Role) HasPrimary() bool { return r.Address != nil || len(r.Data) > 0 }

// Address moves between the nodes of a role. Exactly one of ReservedIP and VIP is set.
type Address struct {
	ReservedIP netip.Addr   `json:"reserved_ip,omitzero"` // the provider's, assigned to one machine
	VIP        netip.Prefix `json:"vip,omitzero"`         // on the link, with its prefix length
	Interface  string       `json:"interface,omitempty"`  // where the VIP goes
	Names      []string     `json:"names"`                // relative to the domain
	MX         int          `json:"mx,omitempty"`         // preference, 1 to 65535; zero: no mail for the domain
}

// Data is a directory that is kept on both nodes of a role.
type Data struct {
	Path  string `json:"path"`            // absolute and clean
	Owner string `json:"owner,omitempty"` // user name; empty: left as it is
	Kind  Kind   `json:"kind"`
}

// Kind says what a directory holds, and so what of it is mirrored, and in which order.
type Kind string

// The kinds there are.
const (
	Plain   Kind = "plain"   // every file is as good as the next; the default
	Maildir Kind = "maildir" // what a mail server makes anew from the messages stays where it was made
	Apt     Kind = "apt"     // packages arrive before the index that names them
)

// Journal says where the sidecar and a mail server meet, so that mail is accepted only when two machines have it. Both
// addresses are on loopback, and different.
type Journal struct {
	Milter        netip.AddrPort `json:"milter"`         // where the sidecar is asked about each message
	SMTP          netip.AddrPort `json:"smtp"`           // where the mail server takes, without asking, what the sidecar kept
	Maildirs      string         `json:"maildirs"`       // holds DOMAIN/USER/Maildir; one of the role's data, or in one of them
	Domains       []string       `json:"domains"`        // those whose mailboxes are there; at least one
	WithoutSecond WithoutSecond  `json:"without_second"` // where no other machine takes a copy
}

// WithoutSecond says what becomes of mail while no other machine can keep a copy.
type WithoutSecond string

// The two answers to mail of which there would be one copy only.
const (
	Defer  WithoutSecond = "defer"  // the sender is asked to try again later; the default
	Accept WithoutSecond = "accept" // it is taken, and lost with this machine until the mirror has it
)

// Health says when a node serves: all of it must hold. The zero Health asks for nothing.
type Health struct {
	Units   []string // systemd units that must be active
	HTTP    []string // URLs that must answer 2xx
	TCP     []string // host:port that must accept
	Command []string // argv of a program that must exit 0; the path is absolute, there is no shell
}

// IsZero reports whether h asks for nothing.
func (h Health) IsZero() bool {
	return len(h.Units)+len(h.HTTP)+len(h.TCP)+len(h.Command) == 0
}

// Need is what another role must answer before this role's first Puppet run.
type Need struct {
	Role     string // who provides it
	What     string // for people: "waiting for WHAT from HOST"
	HTTP     string // URL that must answer 2xx
	Contains string // text its body must contain; empty: any body will do
}

// UnknownHostError is what ForHost returns for a hostname no role lists.
type UnknownHostError struct {
	Hostname string
	Known    []string // every node of the roster, in its order
}

// Error names the nodes there are, as far as they fit on a line.
func (e *UnknownHostError) Error() string {
	const most = 20
	known := strings.Join(e.Known[:min(len(e.Known), most)], " ")
	if more := len(e.Known) - most; more > 0 {
		known += fmt.Sprintf(" and %d more", more)
	}
	hint := ""
	if near := closest(strings.ToLower(e.Hostname), e.Known); near != "" {
		hint = fmt.Sprintf("; did you mean %s?", near)
	}
	return fmt.Sprintf("hostname %s is in no role of roles.yaml (its nodes: %s)%s", quote(e.Hostname), known, hint)
}

// ForHost returns the role of a hostname: a node's name, or that name followed by the domain. The
// spelling must be the roster's, which is lower case. The error is an *UnknownHostError.
func (r Roster) ForHost(hostname string) (Role, error) {
	role, _, err := r.find(hostname)
	return role, err
}

// find returns the role of hostname and the node's short name.
func (r Roster) find(hostname string) (Role, string, error) {
	node := hostname
	if short, ok := strings.CutSuffix(hostname, "."+r.Domain); ok {
		node = short
	}
	for _, role := range r.Roles {
		for _, n := range role.Nodes {
			if n == node {
				return role, node, nil
			}
		}
	}
	return Role{}, "", &UnknownHostError{Hostname: hostname, Known: r.Nodes()}
}

// Nodes returns every hostname of the roster, role by role.
func (r Roster) Nodes() []string {
	var nodes []string
	for _, role := range r.Roles {
		nodes = append(nodes, role.Nodes...)
	}
	return nodes
}

// Order returns the roles so that each comes after those it needs, and otherwise in the order of
// the file. The order says what is worth starting first; it is no promise that it has come up.
func (r Roster) Order() []Role {
	placed := make(map[string]bool, len(r.Roles))
	order := make([]Role, 0, len(r.Roles))
	ready := func(role Role) bool {
		for _, need := range role.Needs {
			if !placed[need.Role] {
				return false
			}
		}
		return !placed[role.Name]
	}
	for len(order) < len(r.Roles) {
		before := len(order)
		for _, role := range r.Roles {
			if ready(role) {
				order = append(order, role)
				placed[role.Name] = true
				break // the first of the file that can go next, so start over
			}
		}
		if len(order) == before {
			panic(fmt.Sprintf("role: needs in a circle, which Parse refuses: %+v", r.Roles))
		}
	}
	return order
}
