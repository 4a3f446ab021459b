//go:build linux

package address

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"understudy/sidecar/boottime"
	"understudy/sidecar/cluster"
)

// ErrSuperseded means that another process has put its own rules in place of ours. This one cannot open a gate any more.
var ErrSuperseded = errors.New("another process keeps the gates")

const (
	// ticketLife bounds the time between the reading of the clock and the kernel's taking of a gate. It must be longer than a
	// process usually waits for its turn, or a busy machine could not open its gate; what it is longer counts as lateness.
	ticketLife = 20 * time.Millisecond
	// tries is how often a gate is written if the kernel refuses it.
	tries = 5
	// worthwhile is the part of the remaining time by which an open gate must be prolonged to be written at all.
	worthwhile = 20
)

// Gate opens the role's gate until an instant, which may also shorten or prolong it, or closes it: now, if until is zero or
// has passed. With drain no new TCP connections are let in. It waits for nobody but other calls.
//
// The gate is never open noticeably longer than until (see the package's comment). It may close sooner by a twentieth of the
// time asked for: a refresh that prolongs it by less than that is not written. An error means that the gate is as it was, or
// closed; it closes by itself at the latest when it was to.
func (a *Addresses) Gate(role string, until cluster.Instant, drain bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	g, err := a.gate(role)
	if err != nil {
		return err
	}
	now := boottime.Now()
	if until <= now {
		return a.closeGate(g)
	}
	wasOpen := now < g.until
	if longer := until.Sub(g.until); wasOpen && drain == g.drain && longer >= 0 && longer < until.Sub(now)/worthwhile {
		return nil
	}
	for range tries {
		if err = a.openGate(g, until, drain); !errors.Is(err, errLate) && !errors.Is(err, errRenewed) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("open the gate of %s: %w", role, err)
	}
	if !wasOpen {
		a.announceAnew(g)
	}
	return nil
}

var (
	// errLate means that the process stood still while it wrote a gate, and the kernel has refused it.
	errLate = errors.New("the process stood still while it wrote")
	// errRenewed means that the kernel has refused a gate for another reason, and the rules have been written anew for it.
	errRenewed = errors.New("the rules had to be written anew")
)

// openGate gets a ticket, reads the clock and writes the gate with it.
func (a *Addresses) openGate(g *gate, until cluster.Instant, drain bool) error {
	ticket, err := a.newTicket()
	if err != nil {
		return err
	}
	left := until.Sub(boottime.Now())
	if a.between != nil {
		a.between()
	}
	if left < time.Millisecond { // a timeout of zero would be for ever
		return a.closeGate(g)
	}
	a.batch.reset()
	a.batch.remove(a.table.tickets, ticket)
	for _, ip := range g.addresses() {
		key := ip.AsSlice()
		if drain {
			a.batch.add(a.table.draining(ip), key, 0)
		} else {
			a.batch.ensureNot(a.table.draining(ip), key)
		}
		for _, s := range a.table.opens(ip, g.link(ip)) {
			a.batch.ensure(s, key, left)
		}
	}
	err = a.kernel.do(&a.batch)
	if missesFirst(err) {
		return errLate
	}
	if r, refused := errors.AsType[*refusal](err); refused {
		return errors.Join(errRenewed, a.renew(r))
	}
	if err != nil {
		return err
	}
	g.until, g.drain = until, drain
	return nil
}

// missesFirst tells whether a batch was refused because what its first change names is not there: the ticket, or the set of
// tickets.
func missesFirst(err error) bool {
	r, refused := errors.AsType[*refusal](err)
	return refused && r.place == 1 && r.err == unix.ENOENT // 0 is the beginning of the batch
}

// newTicket puts a ticket into the kernel. If our rules have gone, it writes them anew, closed.
func (a *Addresses) newTicket() ([]byte, error) {
	ticket, err := a.writeTicket()
	if missesFirst(err) {
		if err := a.restore(err); err != nil {
			return nil, err
		}
		ticket, err = a.writeTicket()
	}
	if err != nil {
		return nil, fmt.Errorf("get a ticket: %w", err)
	}
	return ticket, nil
}

func (a *Addresses) writeTicket() ([]byte, error) {
	a.ticket++
	ticket := binary.NativeEndian.AppendUint32(nil, a.ticket)
	a.batch.reset()
	a.batch.add(a.table.tickets, ticket, ticketLife)
	return ticket, a.kernel.do(&a.batch)
}

// restore writes the rules anew after our set of tickets was missing, if the rules that stand are not another's.
func (a *Addresses) restore(cause error) error {
	there, err := standing(a.nft, a.table.inet)
	if err != nil {
		return err
	}
	if there {
		return ErrSuperseded
	}
	return a.renew(cause)
}

// renew writes the rules anew, with every gate closed. There are two reasons for it. Whoever loads a firewall that begins
// with "flush ruleset", as Debian's nftables.service does, takes ours away, and then everything answers. And a set can be
// EBUSY (seen with Linux 6.1): elements that have expired stay in it for about a second, and a gate that has been opened and
// has expired more than a dozen times within that has too many of them in one chain of the hash table.
func (a *Addresses) renew(cause error) error {
	a.log.Warn("writing the rules of the gates anew", "reason", "they have been changed, or cannot be", "err", cause)
	if err := a.table.install(a.nft, a.specs); err != nil {
		return err
	}
	for _, g := range a.gates {
		g.until = 0
	}
	return nil
}

// closeGate closes at once. A gate of which we know that it has closed is not written.
func (a *Addresses) closeGate(g *gate) error {
	if g.until == 0 {
		return nil
	}
	if err := a.closeThem(g); err != nil {
		return fmt.Errorf("close the gate of %s: %w", g.Role, err)
	}
	return nil
}

// closeAll closes every gate, also those of which we know nothing.
func (a *Addresses) closeAll() error {
	all := make([]*gate, 0, len(a.gates))
	for _, role := range a.roles() {
		all = append(all, a.gates[role])
	}
	if err := a.closeThem(all...); err != nil {
		return fmt.Errorf("close every gate: %w", err)
	}
	return nil
}

// closeThem closes gates in one batch. It needs no ticket, as closing is never too late, but it fails where our tickets have
// no place any more: the rules are another's then, or have gone. If the kernel refuses it otherwise, the rules are written
// anew, which closes every gate.
func (a *Addresses) closeThem(gates ...*gate) error {
	a.batch.reset()
	a.batch.empty(a.table.tickets)
	for _, g := range gates {
		for _, ip := range g.addresses() {
			for _, s := range a.table.opens(ip, g.link(ip)) {
				a.batch.ensureNot(s, ip.AsSlice())
			}
		}
	}
	err := a.kernel.do(&a.batch)
	if missesFirst(err) {
		return a.restore(err)
	}
	if r, refused := errors.AsType[*refusal](err); refused {
		return a.renew(r)
	}
	if err != nil {
		return err
	}
	for _, g := range gates {
		g.until = 0
	}
	return nil
}
