// Package mailjournal keeps accepted mail from being lost with the machine that accepted it.
//
// It promises: Postfix answers 250 only when message and envelope lie, synced, in the primary's Journal and with a Holder
// on another machine. After the loss of either, a new primary finds every such message that was not yet on the mirror
// (Copies.Collect) and hands it to its own Postfix (Reinjector). It delivers at least once: what has arrived in a
// Maildir is not sent again (Maildirs), mail for elsewhere may be sent twice, and is counted.
//
//	smtpd ─▶ OpenDKIM ─▶ Milter ─┬─▶ Journal, fdatasync ───────────────────────┬─▶ 250, or 4xx
//	                             └─▶ Copies ─▶ TLS ─▶ Holder, sealed, fdatasync┘
//	Postfix's log ─▶ Follower ─▶ barrier of the mirror ─▶ closed: holder first, then journal
//	after a failover: holders ─▶ Copies.Collect ─▶ Journal ─▶ Reinjector ─▶ smtpd without milters
//
// # The header
//
// X-Understudy-Journal holds the entry's ID, 128 random bits, and nothing else decides what is a duplicate. Whatever
// arrives with that header through the milter is replaced: it is forged, or another cluster's. What is re-injected keeps
// its ID because it comes in by another door, an smtpd on loopback without milters. So the path vouches and no MAC is
// needed; whoever can connect to loopback may hand in mail anyway (mynetworks).
//
// # When an entry is closed
//
// Postfix's log is the one place that says what became of a message for all its recipients. It has a line with queue ID
// and our header (INFO in milter_header_checks, and in the header_checks of the re-injecting cleanup), status=sent per
// recipient, and "removed" at the end, when each was delivered, relayed, or bounced to its sender. If any was delivered
// here, the mirror is waited for next: one barrier for all that were delivered before it. Watching the Maildirs instead
// would miss relayed mail, and has to map addresses to mailboxes again. The line of a lost log leaves an entry open: that
// costs room and a comparison after a failover, never a message. Queue IDs must be long ones (enable_long_queue_ids):
// short ones are inode numbers and come back within seconds.
//
// # What it refuses
//
// A holder takes nothing from a primary of an epoch below the highest it knows, nor lets it close anything: what a
// deposed primary accepts gets no 250. A journal does not append to a file that an earlier process or a failed sync left.
//
// # A takeover
//
// Service does what a primary needs; Holding is a member's holder, which has one for each duty. Before Postfix starts, its
// queue is emptied if another primary may have been there since it was filled (postsuper -d ALL): all that is in it and was
// answered with 250 is in this machine's journal, and may have been delivered by the other one since. A queue of the node's
// own unbroken reign is left to Postfix, also when the sidecar starts again. Then the holders are collected from, each after
// it has heard of the epoch, and what no Maildir has is handed to Postfix, beside new mail. A member that is away is asked
// when it is back, or its replacement is.
//
// Bounces that Postfix makes itself do not pass the milters: nobody was given a 250 for them.
//
// Sources: milter protocol as in Postfix's MILTER_README and go-milter; group commit after DeWitt et al., "Implementation
// Techniques for Main Memory Database Systems" (1984), section 5.2.
package mailjournal
