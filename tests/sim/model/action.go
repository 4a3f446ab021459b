package model

import "fmt"

// kind is what an action does.
type kind uint8

const (
	tick    kind = iota // one tick passes
	send                // i sends a beat, j has it at once
	hold1               // i sends a beat to j, which is held back
	hold2               // the same, in the second place for such beats
	arrive              // the beat held back in place i arrives
	lose                // it never does
	bid                 // i asks for the next epoch
	bidBy               // the same, with the ledger in mind
	write               // i writes its epoch to the ledger
	read                // i reads the ledger
	offer               // i offers its duty to j
	release             // i gives its duty up
	crash               // i's process dies; what the kernel holds open stays open
	start               // it starts again
	destroy             // i's machine is off, and the provider says so
	replace             // another machine takes i's name
	off                 // i's machine is off, and the provider says so; its disk stays
	on                  // it is on again
	shut                // i's process closes its gate, where the gate does not do it by itself
)

// action is one step. What i and j are depends on the kind.
type action struct {
	kind kind
	i, j uint8
}

func (a action) pack() uint16 { return uint16(a.kind)<<8 | uint16(a.i)<<4 | uint16(a.j) }
func unpack(packed uint16) action {
	return action{kind(packed >> 8), uint8(packed >> 4 & 15), uint8(packed & 15)}
}
func name(member uint8) string { return string(rune('a' + member)) }
func (s *state) pending(p int) string {
	return name(s.late[p].from) + "'s late beat to " + name(s.late[p].to)
}

// text says in words what a does to s.
func (sc Scope) text(a action, s *state) string {
	i, j := name(a.i), name(a.j)
	switch a.kind {
	case tick:
		return "a tick passes"
	case send:
		return i + "'s beat reaches " + j
	case hold1, hold2:
		return i + " sends a beat to " + j + ", which is late"
	case arrive:
		return s.pending(int(a.i)) + " arrives"
	case lose:
		return s.pending(int(a.i)) + " is lost"
	case bid:
		return fmt.Sprintf("%s bids for epoch %d", i, sc.next(s, int(a.i), false))
	case bidBy:
		return fmt.Sprintf("%s bids for epoch %d, for the ledger to decide", i, sc.next(s, int(a.i), true))
	case write:
		return fmt.Sprintf("%s writes epoch %d to the ledger", i, s.n[a.i].hold)
	case read:
		return i + " reads the ledger"
	case offer:
		return fmt.Sprintf("%s offers epoch %d to %s", i, s.n[a.i].hold, j)
	case release:
		return fmt.Sprintf("%s closes its gate and releases epoch %d", i, s.n[a.i].hold)
	case crash:
		return i + "'s process dies"
	case start:
		return i + "'s process starts, its gate is closed"
	case destroy:
		return i + "'s machine is off, and the provider says so"
	case off:
		return i + "'s machine is off, and the provider says so; its disk stays"
	case on:
		return i + "'s machine is on again, and its process starts"
	case replace:
		return "a new machine takes the name " + i
	case shut:
		return i + " closes its gate"
	}
	panic(fmt.Sprintf("no such action: %d", a.kind))
}
