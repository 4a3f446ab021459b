package model

// Scope is the size of the world that is searched.
type Scope struct {
	Members             int
	Detection, Gate     uint8 // ticks; Gate must be below Detection
	LeaseFor, LeaseWait uint8
	Epochs              uint8 // the highest one that may be bid for
	Ledger              bool
	Begin               Begin
	Budget              Budget
	Without             Mechanisms
	// States ends the search when so many have been seen; zero: never. An unfinished search proves nothing, and says so.
	States int
}

// Begin is where a search begins.
type Begin uint8

const (
	Quiet  Begin = iota // a holds epoch 1 with everybody's promise, and all have just heard each other
	Cold                // nobody has ever held anything
	Leased              // the same as Quiet, long ago; by now a holds the next epoch by lease, and as few as can be know of it
	Alone               // the same, but a is alone in knowing of it, since the last one's machine was off; it still is
)

// Mechanisms are the rules that the search can do without, to show what each is good for.
type Mechanisms struct {
	Majority    bool // a bid wins with one's own promise alone
	OnePromise  bool // a member goes on confirming the old holder after promising a higher epoch
	QuietWait   bool // a winner acts although its promisers' old confirmations have not run out
	ChainedWait bool // only the last holder's confirmations are waited for, not those of the ones before it
	StartQuiet  bool // a started member grants and confirms at once
	DiskEpoch   bool // a started member has forgotten which epoch it promised
	DiskLease   bool // a started member has forgotten that the epoch it promised is held by lease
	DiskSeen    bool // a started member has forgotten what it read in the ledger after a boot
	SelfClose   bool // the gate stays open until the process closes it
	Sequence    bool // a late beat is taken although a newer one has arrived
	AfterLease  bool // a majority takes over an epoch held by lease without the ledger
	LeaseWait   bool // a lease is used as soon as it is written
	StepDown    bool // a holder by lease goes on after having promised a later epoch to another
	GiveUp      bool // a holder that nobody confirms keeps its epoch for as long as it likes
	LeaseRead   bool // a lease lasts without reading the ledger again
	Blocking    bool // a lease needs no promises but one's own
	FreshRead   bool // a machine that has booted votes before it has read the ledger
	LedgerFloor bool // what it read there does not keep it from promising that epoch, or one before it, to another
	Learning    bool // a new machine votes without having heard what others have promised
	Parity      bool // a majority and the ledger may both give out the same epoch; only the first law can hold then
	SkipSafely  bool // the lease wait is skipped as soon as the holder bidden over is gone or has given up
}

func (sc Scope) majority() int { return sc.Members/2 + 1 }

// never is an age from which a confirmation is of no use.
func (sc Scope) never() uint8 { return sc.Gate }
