// Package reconcile turns what decide.Next decides into deeds. One loop observes (readings of the mesh, the kernel, the
// ledger, the provider, the zones and the node's own services lie ready on a board), asks for a decision, and acts on it.
// It judges nothing itself: what it adds is order, freshness and honesty.
//
// Order, in every turn: gates that are to close are closed; what must survive a restart goes to the disk; then the node says
// so in its beats; then gates are opened; then slow actions are handed to the executor. If one of the first two fails, the
// later ones are not taken and the turn's memory is forgotten, so that nothing is said that is not so.
//
// Freshness: a turn that comes later than it should by more than the gate time is a gap (the process was stopped, the machine
// slept). Then the gates are closed first, the mesh forgets what it heard, and the view starts anew. An action's Expect is
// read again right before the call, on the goroutine that makes it.
//
// Honesty: an action that fails is tried again with growing pauses while decisions still want it, is logged when it first
// fails and when its error changes, and stands among what is blocked. Nothing is dropped in silence.
//
// The package knows the outside by the interfaces of World only. Whatever World lacks, this node does not have.
package reconcile
