// Package model checks the duty protocol of sidecar/DESIGN.md by looking at every state it can reach in a small world: two
// to four members, one duty, a few epochs, a bounded number of restarts and of late messages. It is written from the
// protocol's description and shares no code with sidecar/decide, so that a mistake in one is not a mistake in both.
//
// Time is discrete. One tick is what the gate time and the detection time are multiples of; every age is counted up to the
// point from which it makes no difference any more, so that the reachable states are finitely many and the search ends by
// itself. Within a tick everything may happen in any order, any number of times, or not at all: a beat that is not taken as
// a step was lost. Beats arrive at once, or are held back for as long as the adversary likes (Scope.Late at a time). There
// is no clock drift here: that is measured by the simulator beside this package.
//
// Three laws are checked. No two members answer at a time. An epoch has one holder, and nobody begins to act under an epoch
// after somebody has acted under a later one; these two can hold only where a majority and the ledger do not give out the same
// numbers (Mechanisms.Parity), and the last only where no machine is lost.
//
// What is left open on purpose, because safety must not hang on it: when a candidate bids (here it may at any time), which
// candidate is best, and the tie objects by which one half of the members is chosen for all duties at once.
//
// States are told apart by 64 bits of a hash, after renaming members to the smallest of all namings. With ten million
// states the chance that two of them met, and one was not looked into, is about three in a million.
package model
