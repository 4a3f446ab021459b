// Package secrets keeps what a cluster must not show: the sealed bundle in the control repo, the files Puppet needs of
// it, and the way by which a new node comes to the key that opens it.
//
// It promises that no secret appears in an error, a log line or any printed value (type Secret; errors of parsers give
// positions and never quote), that files change whole or not at all, and that nothing is handed out unless every check
// said yes. It refuses unknown keys, other versions and anything larger than its bounds. It keeps nothing secret from
// root on a node: whoever is root on one healthy node has the whole bundle.
//
// # The bundle
//
// secrets.age is YAML (Bundle) in an age file (https://age-encryption.org/v1) for three recipients: the cluster, whose
// identity every healthy node holds, the beachhead, and the operator's offline key.
//
// # Joining, version 1
//
// A new machine has nothing but its user data, which is a Ticket: two lines,
//
//	#understudy-ticket v1
//	{"cluster":"blog","node":"web1","nonce":"<32 hex>","expires":"2026-01-02T15:04:05Z","peers":["10.0.0.2:7747"],"pin":"<64 hex>","mac":"<64 hex>"}
//
// mac is HMAC-SHA256 over all other fields, each after its length as eight bytes, big-endian, in the order cluster,
// node, nonce, expires (seconds since 1970 as eight bytes), pin, the number of peers as eight bytes, peers. The key is
// HKDF-SHA256 of the cluster key with info "understudy join ticket v1". A rewritten JSON is refused: there is one text
// per ticket.
//
// The newcomer makes an age X25519 key, keeps it on its disk, and asks the peers in order, over TLS 1.3 in which the
// server's SubjectPublicKeyInfo must have the SHA-256 pin:
//
//	POST /v1/join    {"ticket":{…as above…},"recipient":"age1…","machine_id":"12345"}
//	200              {"sealed":"<base64 of a binary age file for recipient>"}
//	other            application/problem+json (RFC 9457): {"title":REASON,"status":STATUS,"detail":NEXT THING TO DO}
//
// The sealed file is {"cluster","node","nonce","identity","allowed_signers" (base64),"oldest_commit","commit"}; the first three
// must be the ticket's, and the last three may be missing. A 4xx problem is final. Anything else (no connection, another key, 503, other bodies) sends the
// newcomer to the next peer, and after the last into a pause that doubles from 0.5 s to 15 s, half of it jitter. A peer
// answers only when, in this order, the MAC holds, the cluster is its own, the ticket has not expired by its clock, the
// provider confirms the machine (JoinConfig.Source), and the nonce is unused or was used by the same recipient.
//
// # The control repo, on the same port
//
// A machine that has joined, and has no certificate of a member yet, may fetch the control repo from the same peers, under the same pin,
// should its origin not answer: git's smart HTTP (gitprotocol-http(5)) below /v1/control.git, with
//
//	Authorization: Bearer <hex of HKDF-SHA256 of the text of the cluster's identity, info "understudy control repo v1">
//
// # What a thief gets
//
// Every process on the new machine can read its user data from the metadata service, and so can the provider and
// whoever may read the API. The ticket alone is worth little:
//
//   - From elsewhere it opens nothing: the peer asks the provider whether the caller's address and machine ID are those
//     of the machine called by the ticket's node. A refusal for that reason does not spend the ticket.
//   - On the machine itself it works once. The node asks at its first boot, before anything else that is not in the
//     image runs; afterwards the nonce belongs to the node's own key. Should a process ever be first, it gets the
//     identity, the node is refused with ReasonUsed, both sides log it, and no second machine is let in: the operator
//     changes keys. This, and that the metadata service can be closed to all but root after boot, is the whole defence
//     there, so a machine that runs strangers' code before the join is out of scope.
//   - After its expiry it opens nothing at all.
//   - It does not help to pose as a peer: that takes the pinned key. It does not help to listen: TLS 1.3 agrees on keys
//     afresh, and the answer is sealed to a key that never leaves the newcomer.
//   - Replaying a recorded request, should TLS fall, gives an answer that only the first newcomer can open.
//
// Who can change a machine's user data before its first boot (the provider, the holder of its token) can send it to a
// cluster of his own, but could as well change its image. A peer learns the newcomer's public key, machine ID and
// address, nothing else. The newcomer trusts a peer for the allowed signers and the oldest commit, since a peer that
// can answer holds the identity already.
//
// # The first machine
//
// A cluster's first machine has no peer to ask. Its user data is a Seed, two lines like a ticket's, with the private half of an SSH
// host key and the public half of an operator's key, both made for this machine alone (Handover). It waits on HandoverPort,
// and understudy launch hands it what a peer would have: over SSH (RFC 4253), in which the machine proves the host key and the operator
// his, on a channel of type identity@understudy, as the JSON of a sealed file above, answered "saved". Nobody has to trust a key on
// first use: the operator knows it, because he has made it.
//
// What a thief of this user data gets: with the host key he can pose as the machine, but only to an operator whose packets reach him
// in its place, and only until the machine has the identity; so it takes a process on a machine that nothing has been installed on
// yet, or the provider, and either could take the identity from the machine's disk. He cannot pose as the operator. Afterwards both
// keys are good for nothing.
//
// The ticket is single use per Used: peers that do not share one (MemoryUsed) each let one recipient in.
package secrets
