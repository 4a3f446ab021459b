// Package cluster holds the nouns that all parts of the sidecar share, as plain values.
//
// # Glossary
//
//	node, incarnation   a hostname such as web1, which survives replacement; one machine life of it
//	machine, image      a provider's VM (a droplet); the bootable disk it starts from
//	role, duty          a Puppet role, from roles.yaml; the HA position in it: primary or standby
//	roster              who should exist; a member is one of them, a peer a member that is not me
//	view                what one node believes at one instant
//	alive, suspect,
//	failed              verdicts from silence; failed is not fenced
//	fence               confirmed: that machine is off or gone
//	step down           give up one's own duty
//	failover, takeover,
//	switchover          the event; the standby's act; the planned one
//	epoch               the number of a duty's term; it only grows
//	promise             the highest epoch of a duty that a member has granted, and to whom
//	bid                 the request for a promise
//	confirm             to name a holder's beats while the promise is his: his right to answer lives on that
//	replacement         a new incarnation of a failed node
//	mirror, checkpoint  the live copy of a role's data on a peer; a point-in-time copy in remote storage
//	redundant           every role has all its nodes serving
//	incident            one loss and its recovery, with a timeline
//	pause               observe and report, do nothing
//
// The package is pure: it reads no clock, opens nothing and starts nothing.
package cluster
