// Package peerlink carries streams between members: TLS 1.3 on one port, both sides with a certificate that only the cluster
// key can make, and the protocol chosen by ALPN (RFC 7301). It promises whoever serves a stream the name of the member that
// dialled, and whoever dials that the member which answers is the one that was meant: addresses are found in many ways, and
// a machine may have been replaced by another at the same one. Certificates hold whatever the clock says.
//
// A stream whose other machine is gone ends within DeadAfter, whether something is being sent or nothing: what waits for an
// answer then asks elsewhere, and what follows a peer dials again.
//
// Everybody on the network may connect, so everything before the handshake's end is bounded: its time, how many are under way,
// and how many of them come from one address. Afterwards it is a member that speaks, which may have so many streams at a time.
package peerlink
