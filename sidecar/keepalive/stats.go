//go:build linux

package keepalive

import "net/netip"

// Reason is why a datagram was refused. It is short and stable, fit for the label of a metric.
type Reason string

// Reasons, in the order in which they are looked for.
const (
	NotABeat     Reason = "not a beat"
	OtherVersion Reason = "other version"
	Stranger     Reason = "stranger"  // the sender is no member
	Forged       Reason = "forged"    // not sealed under the cluster's key, or damaged
	Malformed    Reason = "malformed" // sealed well, and yet not readable
	Stale        Reason = "stale"     // a repeat, or overtaken by a newer beat
	Unproven     Reason = "unproven"  // of a session that has not shown to be alive; each one begins so
)

// Stats are counts since New, and what is known of each peer's path.
type Stats struct {
	Sent, Received Traffic
	// Unsent are datagrams that the kernel did not take, such as for want of a route.
	Unsent  uint64
	Refused map[Reason]uint64 // of the received ones
	Peers   map[string]PeerStats
}

// Traffic counts datagrams and their bytes without the headers of UDP and IP.
type Traffic struct{ Packets, Bytes uint64 }

func (t *Traffic) add(bytes int) {
	t.Packets++
	t.Bytes += uint64(bytes)
}

// PeerStats are the facts of one peer.
type PeerStats struct {
	Addr     netip.AddrPort // where beats go; invalid: not known
	Sent     uint64
	Received uint64 // beats that counted
	Sessions uint64 // sessions of it that began
	Missed   uint64 // how often two beats in a row failed to come, in either direction
}
