//go:build linux

// Package keepalive tells the members of a cluster, ten times a second, that the others are there, what they say of
// themselves, and who hears whom. It judges nothing: how long a silence may last is for others to say.
//
// # Beats
//
// A beat is one UDP datagram. It holds the sender's announcement, and for every other member the newest beat that the sender
// has heard from it. So each member knows the whole matrix of who hears whom, and for each of its own beats who has named it.
// Beats are levels, not events: each one says everything, so one that is lost, or is overtaken by a later one, costs nothing.
//
// # Wire format, version 1
//
// Fixed numbers are big endian. A varint is Go's unsigned varint (encoding/binary) in its shortest form; a string is a varint
// length and its bytes; a duration is a varint of milliseconds, rounded down, at most cluster.Forever; an address is its
// length, 0, 4 or 16, and its bytes; a list is a varint count and its items.
//
//	bytes  header, readable by everybody
//	3      "ust"
//	1      version: 1
//	8      session: random, chosen when the sender starts and whenever it has lost time
//	8      seq: 1 for the first beat of a session, growing; not every member is sent each one
//	1      length of the sender's name
//	…      the sender's name
//	       body, under AES-256-GCM: nonce = four zero bytes and seq, additional data = the header,
//	       key = HKDF-SHA256(cluster key, salt "understudy keepalive 1", info = session and the sender's name)
//	…      string: the announcement, in itself:
//	         varint claim; string machine; address private, public; byte phase; byte health;
//	         byte flags (1 voting, 2 paused, 4 clock off); string commit;
//	         list of promises: string duty; varint epoch; string holder;
//	           byte flags (1 lease, 2 clear, 4 after a lease);
//	         list of bids: string duty; varint epoch; byte flags (1 lease, 2 last);
//	         list of holds: string duty; varint epoch; byte state; string to;
//	         list of mirrors: string role; varint epoch; byte flags (1 source, 2 complete); varint synced; varint from;
//	         list of moves: string duty; varint from; string to
//	…      list of the same length, for each mirror: byte caught up (0, 1); duration lag; varint bytes behind;
//	       they stand apart because they change from beat to beat, and the announcement seldom does
//	…      list of the other members, by ascending name:
//	         byte how many bytes of the name before are the start of this one; string the rest of it;
//	         duration the pace at which the sender sends beats to it;
//	         8 bytes session of its newest beat heard here, zero: none, and nothing follows;
//	         varint seq of that; duration how long ago it arrived
//	16     tag of AES-256-GCM
//
// A later version 1 may append to the body; what follows the known part is ignored. What an older receiver would misread
// takes another version, and is refused. A cluster of 32 fits into 1200 bytes; a beat that does not is sent all the same,
// in IP fragments.
//
// # What is refused
//
// Anything that is not from a member of the roster under the cluster's key; a beat whose seq is not above the newest of its
// session; and a session that has not shown to be alive. No window of numbers is kept, as in RFC 4303 section 3.4.3: it would
// admit only beats that say less than one that is here already.
//
// A session counts from the first beat that names a beat of ours which no session of that sender has named before. What was
// recorded of an earlier session names only older ones, whatever session we were in, so it can neither bring a dead member
// back nor replace a living one. Who receives a beat of an unproven session answers it at once, to where it came from, naming
// it; so a session is proven after one and a half round trips. It follows that a session begins only where both directions
// work; after that each direction is heard by itself.
//
// # Time
//
// Arrival is when the beat is read from the socket. Under load that is late, so a peer seems alive for longer, never dead
// sooner. Kernel timestamps would be truer by that much, but are of the wall clock, which may be set. Confirmations do not
// depend on arrival at all: they are told as the instant at which the confirmed beat was about to be sent.
//
// Silence counts only while we listen. If our own timers come late, everything that was heard is taken to have been heard
// later by as much, because beats may wait in the socket, or their senders on the same processors stood still as well. After
// a long pause the socket holds beats of long ago: the caller notices the gap and calls Reset, whereupon only beats that
// name a new session of ours count.
package keepalive
