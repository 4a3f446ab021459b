//go:build linux

package address

import (
	"encoding/binary"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// batch is a transaction of changes to sets' elements, in netlink's encoding (netlink(7), linux/netfilter/nf_tables.h). An
// open gate is refreshed ten times a second for ever, so this is written by hand: github.com/google/nftables, which writes the
// rules, asks for an acknowledgement of each message and takes two system calls to read each, 12 times the cost in all.
// The zero value is an empty batch; a batch is used again after reset, without allocating.
type batch struct {
	buf   []byte
	first uint32 // number of the message that begins the transaction
	last  int    // where in buf the newest message begins
	seq   uint32 // its number
}

// reset begins a transaction.
func (b *batch) reset() {
	b.buf = b.buf[:0]
	b.message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.NLM_F_REQUEST, unix.NFNL_SUBSYS_NFTABLES)
	b.first = b.seq
}

// end ends the transaction. The kernel reports whatever fails, and acknowledges the last change, of which there must be one.
func (b *batch) end() {
	flags := b.buf[b.last+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	b.message(unix.NFNL_MSG_BATCH_END, 0, unix.NLM_F_REQUEST, unix.NFNL_SUBSYS_NFTABLES)
}

// add puts an element into the set. One that is there already is left as it is, or on Linux ≥ 6.12 gets the new timeout.
// A timeout of zero is for ever, less than a millisecond is as much.
func (b *batch) add(s *nftables.Set, key []byte, timeout time.Duration) {
	b.element(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_REQUEST|unix.NLM_F_CREATE, s, key, timeout)
}

// remove takes an element out of the set. One that is not there fails the batch with ENOENT.
func (b *batch) remove(s *nftables.Set, key []byte) {
	b.element(unix.NFT_MSG_DELSETELEM, unix.NLM_F_REQUEST, s, key, 0)
}

// empty takes all elements out of the set. A set that is not there fails the batch with ENOENT.
func (b *batch) empty(s *nftables.Set) {
	b.message(change|unix.NFT_MSG_DELSETELEM, byte(s.Table.Family), unix.NLM_F_REQUEST, 0)
	b.names(s)
	b.finish()
}

// ensure makes the element expire after timeout, whether or not it is there.
func (b *batch) ensure(s *nftables.Set, key []byte, timeout time.Duration) {
	b.add(s, key, timeout) // so that it can be removed
	b.remove(s, key)
	b.add(s, key, timeout)
}

// ensureNot takes the element out of the set, whether or not it is there.
func (b *batch) ensureNot(s *nftables.Set, key []byte) {
	b.add(s, key, 0)
	b.remove(s, key)
}

// change is what a message's kind begins with that is for nftables.
const change = unix.NFNL_SUBSYS_NFTABLES << 8

func (b *batch) element(kind uint16, flags uint16, s *nftables.Set, key []byte, timeout time.Duration) {
	b.message(change|kind, byte(s.Table.Family), flags, 0)
	b.names(s)
	list := b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	element := b.nest(1) // NFTA_LIST_ELEM
	value := b.nest(unix.NFTA_SET_ELEM_KEY)
	b.attribute(unix.NFTA_DATA_VALUE, key)
	b.close(value)
	if timeout > 0 {
		b.attribute(unix.NFTA_SET_ELEM_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(timeout.Milliseconds())))
	}
	b.close(element)
	b.close(list)
	b.finish()
}

func (b *batch) names(s *nftables.Set) {
	b.text(unix.NFTA_SET_ELEM_LIST_TABLE, s.Table.Name)
	b.text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
}

// message begins one with the header of netlink and that of nfnetlink, which are a message already; finish must follow what
// is put after them.
func (b *batch) message(kind uint16, family byte, flags, resource uint16) {
	b.last = len(b.buf)
	b.seq++
	b.buf = binary.NativeEndian.AppendUint32(b.buf, unix.SizeofNlMsghdr+4)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, flags)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, b.seq)
	b.buf = append(b.buf, 0, 0, 0, 0) // the port: the kernel knows it
	b.buf = append(b.buf, family, unix.NFNETLINK_V0)
	b.buf = binary.BigEndian.AppendUint16(b.buf, resource)
}

func (b *batch) finish() {
	binary.NativeEndian.PutUint32(b.buf[b.last:], uint32(len(b.buf)-b.last))
}

// nest begins an attribute that holds attributes; close ends it.
func (b *batch) nest(kind uint16) int {
	at := len(b.buf)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind|unix.NLA_F_NESTED)
	return at
}

func (b *batch) close(at int) {
	binary.NativeEndian.PutUint16(b.buf[at:], uint16(len(b.buf)-at))
}

func (b *batch) attribute(kind uint16, value []byte) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(unix.SizeofNlAttr+len(value)))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	b.pad(append(b.buf, value...))
}

func (b *batch) text(kind uint16, value string) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(unix.SizeofNlAttr+len(value)+1))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	b.pad(append(append(b.buf, value...), 0))
}

// pad fills up to netlink's alignment.
func (b *batch) pad(buf []byte) {
	for len(buf)%unix.NLMSG_ALIGNTO != 0 {
		buf = append(buf, 0)
	}
	b.buf = buf
}
