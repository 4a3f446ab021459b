//go:build linux

package address

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// kernel is the socket by which batches go to nftables. A negative fd is not open.
type kernel struct {
	fd int
	in [8192]byte
}

func (k *kernel) open() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open a netlink socket for nftables: %w", err)
	}
	k.fd = fd
	return nil
}

// shut closes a socket that may not be open, once.
func shut(fd *int) error {
	if *fd < 0 {
		return nil
	}
	defer func() { *fd = -1 }()
	return unix.Close(*fd)
}

// refusal is the kernel's answer to one message of a batch, of which nothing has been done then.
type refusal struct {
	place int // of the message in the batch, whose beginning is 0
	err   unix.Errno
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// do has the kernel carry out a batch, completely or, if it returns an error, not at all. The kernel does so within the
// system call that sends it (nfnetlink_rcv_batch of net/netfilter/nfnetlink.c), so the answers are there afterwards and
// nothing is waited for. The error is a *refusal where the kernel has named a message, the first of them.
func (k *kernel) do(b *batch) error {
	last := b.seq // the acknowledgement is of the message before the batch's end
	b.end()
	if err := unix.Sendto(k.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to nftables: %w", err)
	}
	var first error
	done := false
	for {
		n, _, err := unix.Recvfrom(k.fd, k.in[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) && first == nil && !done:
			return errors.New("nftables does not answer")
		case errors.Is(err, unix.EAGAIN):
			return first
		case err != nil:
			return fmt.Errorf("receive from nftables: %w", err)
		}
		seq, number, err := outcome(k.in[:n])
		switch {
		case err != nil:
			return err
		case number == 0:
			done = done || seq == last
		case first == nil:
			first = &refusal{int(seq - b.first), number}
		}
	}
}

// outcome reads one of the kernel's answers: which message it is about, and the number of its error, zero for none.
func outcome(answer []byte) (seq uint32, number unix.Errno, err error) {
	const code, about = unix.SizeofNlMsghdr, unix.SizeofNlMsghdr + 4 // struct nlmsgerr: the error, then the message's header
	if len(answer) < about+unix.SizeofNlMsghdr || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return 0, 0, fmt.Errorf("nftables answers with %d bytes that are no acknowledgement", len(answer))
	}
	seq = binary.NativeEndian.Uint32(answer[about+8:])
	return seq, unix.Errno(-int32(binary.NativeEndian.Uint32(answer[code:]))), nil
}
