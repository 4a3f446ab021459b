// Package decide holds all of the sidecar's judgement: Next turns what a node believes (View), what it has promised and holds
// (Memory) and what it was told to keep up (Policy) into what it says and does next (Decision).
//
// It promises: the same values give the same decision, down to the order of its actions; no action without a sentence that
// says why; no action of a duty without the epoch it assumes; nothing that is wanted and not possible goes unmentioned
// (Decision.Blocked). It refuses to judge by two machines' clocks: every instant is this machine's, every age another one
// tells was measured there.
//
// A concern a file: verdict.go (who is silent), promise.go (whom to confirm), bid.go (when to ask for a duty), hold.go (when to
// act, and when no longer), lease.go (outside a majority), data.go (who has the newest data), move.go (planned moves), gate.go,
// address.go, units.go, names.go, ledger.go (what follows from a duty), replace.go (new machines for lost nodes), collect.go (old ones are deleted), leave.go (a node that a commit removes), rollout.go (which commit a
// node takes, and when), say.go (what the beats tell). The argument that two nodes never act is in sidecar/DESIGN.md.
package decide
