package model

// Most members and epochs of a scope.
const (
	maxMembers = 4
	maxEpochs  = 6
)

// hold is what a member has of an epoch.
type hold uint8

const (
	none     hold = iota
	bidding       // asks for promises
	waiting       // has them, the one before may still act
	held          // acts while its gate or its lease lasts
	offered       // the same, and would like another to take over
	released      // has stopped acting under this epoch, for good
)

// node is one member's state. Ages and remaining times are in ticks; an age stops growing where it says nothing more.
type node struct {
	up   bool
	gone bool  // the machine is off, or is no more, and the provider says so
	lost bool  // it is no more
	mute uint8 // until it grants and confirms again after a start
	// A new machine learns what the old one may have promised from so many others that one of them was promised it, too.
	learns bool
	fresh  bool  // the machine has booted, and has not read the ledger since
	seen   uint8 // the highest epoch it has seen in the ledger; only kept where it was read after a boot
	seenBy uint8 // whose that is
	seenOn bool  // it is a lease, and not known to be over
	knows  uint8 // set of members it has heard

	// On the disk: the highest epoch ever promised, and whether that or one behind it is held by lease.
	disk      uint8
	diskLease bool

	// The promise.
	epoch      uint8 // zero: none
	holder     uint8
	lease      bool  // the holder acts by the ledger's word
	afterLease bool  // somebody may still hold an epoch before this one by the ledger's word
	heard      uint8 // age of the arrival of the holder's newest beat
	sent       uint8 // age of the sending of that beat
	says       uint8 // what the holder last said: quiet, gaveUp, or toward + to whom it is offered
	// until whom this member confirmed before can no longer be acting on it: the last one, and those before that
	clearLast, clearOlder uint8
	lastEpoch, lastHolder uint8 // who the last one is
	gaveUp                bool  // the last one has said that it has given that epoch up, or is gone

	// What it holds, or asks for, or held before.
	state    hold
	hold     uint8             // epoch
	byLease  bool              // asked for with the ledger in mind
	to       uint8             // offered to
	promised uint8             // set of members whose newest beat promised hold to this one
	after    uint8             // of those, who said that a lease may be behind it
	stale    uint8             // of those, who is another machine by now
	stood    uint8             // of those, who said that it acts under no epoch itself
	conf     [maxMembers]uint8 // age of this one's newest beat that the member confirmed; never, when it is too old to matter
	wrote    bool              // the ledger has the epoch
	wait     uint8             // until the wait after the writing is over
	gate     uint8             // until the gate closes by itself; goes on when the process is dead
	read     uint8             // until the ledger must have been read again; the gate closes then, too
	idle     uint8             // for how long it has been unable to act, though it holds the epoch
}

// What a holder last said of its epoch to a member that promised it.
const (
	silent uint8 = iota // nothing that matters: it holds it, or has not said
	gaveUp              // it has released it, or says no more that it has it
	toward              // toward+m: it is offered to m
)

// beat is a member's announcement on its way, with what a receiver makes use of.
type beat struct {
	from, to uint8
	on       bool
	age      uint8 // since it was sent
	n        node  // the sender as it was
}

// state is the whole world at one instant.
type state struct {
	n      [maxMembers]node
	late   [2]beat
	ledger [maxEpochs + 1]record
	won    [maxEpochs + 1]uint8 // who has ever won an epoch, plus one
	acted  uint8                // the highest epoch anybody has acted under
	left   Budget               // of what the adversary may still do
}

// record is the ledger's object for an epoch.
type record struct {
	by    uint8 // holder plus one; zero: there is no object
	lease bool
}

// Budget is how often the adversary may do what does not end by itself.
type Budget struct {
	Crashes uint8 // of a process; it may start again
	Losses  uint8 // of a machine; a new one may take its name, with an empty disk
	Offs    uint8 // a machine is switched off; it may come back with its disk
	Late    uint8 // beats held back
	Moves   uint8 // offers and releases on request
}

// open tells whether m answers on the address: its gate, or the lease that keeps it open.
func (s *state) open(m int) bool { return s.n[m].gate > 0 || s.n[m].read > 0 }
