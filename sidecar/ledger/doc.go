// Package ledger is what the cluster has written down where the loss of every node but one cannot reach it: objects in an
// S3-compatible store at another provider.
//
// It promises that an object, once written, is never changed by us (heartbeats apart, each with one writer), that of several
// writers of one key exactly one is told so, and that nothing counts as absent because it could not be read: an answer that
// is incomplete, garbled or foreign is an error. It refuses to believe a store that knows less than it has shown before.
// It decides nothing: who may act on a record is for package decide.
//
// # Keys
//
// All keys begin with the cluster's name, so that clusters may share a bucket; numbers have twenty digits, so that the order
// of keys is that of numbers:
//
//	<cluster>/claims/<node>/<epoch>       cluster.Claim: this machine is that node's incarnation
//	<cluster>/tombstones/<node>/<epoch>   the claim of that epoch is void
//	<cluster>/left/<node>/<epoch>         and its machine has ended it, because the roster has no place for it any more
//	<cluster>/duty/<duty>/<epoch>         cluster.DutyRecord: who holds the duty in that epoch
//	<cluster>/tie/<n>                     cluster.Tie: the half of the roster that may act
//	<cluster>/reseeds/<n>                 all that the nodes remembered was written before: what this process saw earlier is void
//	<cluster>/intents/<node>/<n>          cluster.Intent: the node shall have a new machine
//	<cluster>/calls/<node>/<n>            cluster.Call: who asks the provider for it, once
//	<cluster>/closed/<node>/<n>           cluster.Closing: how that ended
//	<cluster>/chaos/<n>                   cluster.Destruction: who asks the provider to destroy a healthy machine, once
//	<cluster>/wishes/<node>/<n>           cluster.Wish: what a person wants to become of machines that may have data
//	<cluster>/tickets/<nonce>             who has joined with a ticket
//	<cluster>/heartbeat/<node>            Heartbeat; overwritten by its node alone
//	<cluster>.incidents/<id>/<nn>-<phase> Step of an Incident; apart, so that a reading does not list the history
//	<cluster>.selftest/<node>/<random>    written and deleted by SelfTest
//
// Everything but heartbeats is written with If-None-Match: *, and there is one text for each value: an object is read only
// if it is, byte for byte, what this package would write for it under that key. Other kinds of keys are left alone, as
// newer versions may have them.
//
// # Costs
//
// A reading is one LIST of the cluster's keys (one more per thousand) and one GET for every record that is new and the newest
// of its kind; records are remembered, since they never change. LIST and PUT are what stores charge for: eight nodes that
// read every 10 s make 70,000 a day.
//
// # Why no SDK
//
// Four requests are all we need, and three things that neither SDK gives: the Date of each answer (ages are Date minus
// Last-Modified of one answer, never our clock), a clock for signatures that is not the machine's (a node whose clock is off
// must reach the ledger all the more), and the certainty that one call is one request, since a repeated Create that is
// refused looks as if somebody else had been first. Measured with Go 1.26 over 200 writes and listings against the same
// server: net/http alone 6.0 MB program and 11.2 MB resident, minio-go 7.4 another 1.5 and 2.0 MB, aws-sdk-go-v2 another 2.4 and
// 2.3 MB. Signatures are package sigv4's, which tests hold to AWS's published examples and to minio-go's signer.
package ledger
