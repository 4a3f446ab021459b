package pack

import "time"

// Stretch is what was measured of a stretch of bytes that was sent.
type Stretch struct {
	Bytes   int           // before packing; how many are left of them shows in Blocked
	Tried   bool          // packing was tried, though it may not have made it shorter
	Packing time.Duration // spent with packing
	Blocked time.Duration // spent in writing
}

// Policy decides for each stretch whether to pack it, by what either way has cost per byte. It judges in rounds. The zero value
// packs nothing until it has seen a round in which writing had to wait. It is a value: After returns the next one.
type Policy struct {
	Pack   bool    // whether to pack the next stretch
	Plain  float64 // ns per byte in the last round in which nothing was packed
	Packed float64 // ns per byte, packing included, in the last round in which all was; 0: there was none

	round Stretch // the sum of the stretches in this round
	trial bool    // this round goes the other way, to see what that would cost
	wait  int     // rounds until the next trial
	pause int     // what wait begins with; 0 until the first trial
}

const (
	// round is its length in bytes. It exceeds a socket's usual buffers: what finds room there does not wait, and says nothing
	// about the line.
	round = 2 << 20
	// little is a stretch, in bytes, too short to learn from: it measures system calls.
	little = 4 << 10
	// idle is a wait, in ns per byte, below which packing cannot pay: nothing packs above 1 GB/s.
	idle = 1.0
	// gain is the part of the plain cost that packing must stay below, to be worth the CPU that it takes from others.
	gain = 0.9
	// The pauses between two trials, in rounds. They double with every trial that is lost: most of a file is of one kind.
	firstPause, lastPause = 4, 64
)

// After takes in what came of a stretch. One that did not go as the policy had said changes nothing.
func (p Policy) After(s Stretch) Policy {
	if s.Bytes < little || s.Tried != p.Pack {
		return p
	}
	p.round.Bytes += s.Bytes
	p.round.Packing += s.Packing
	p.round.Blocked += s.Blocked
	if p.round.Bytes < round {
		return p
	}
	p.learn()
	return p.decide()
}

// learn is the end of a round. Where packing takes so long that the line idles meanwhile, plain bytes may still have to wait for it,
// and the other way round; so one way's wait says nothing about the other's.
func (p *Policy) learn() {
	cost := float64(p.round.Packing+p.round.Blocked) / float64(p.round.Bytes)
	if p.Pack {
		p.Packed = cost
	} else {
		p.Plain = cost
	}
	p.round = Stretch{}
}

func (p Policy) decide() Policy {
	p.wait--
	better := p.Packed > 0 && p.Plain > idle && p.Packed < gain*p.Plain
	switch {
	case p.trial:
		p.trial = false
		p.pause = min(2*p.pause, lastPause)
		if better == p.Pack {
			p.pause = firstPause
		}
		p.Pack, p.wait = better, p.pause
	case better != p.Pack:
		p.Pack, p.pause, p.wait = better, firstPause, firstPause
	case p.wait <= 0 && (p.Pack || p.Plain > idle):
		p.Pack, p.trial, p.pause = !p.Pack, true, max(p.pause, firstPause)
	}
	return p
}
