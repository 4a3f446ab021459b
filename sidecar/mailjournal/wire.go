package mailjournal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The stream between a primary and a holder: each side says hello once, then come frames. The primary numbers its
// requests and may have many in flight; the holder answers each with its number, in any order.
//
//	frame    length of the rest 4 | kind 1 | number 8 | body
//	append   epoch 8 | id 16 | time 8 | sealed entry    → done
//	finish   epoch 8 | id 16 | time 8 | how 1           → done
//	list     from which ID 16                           → listed: (epoch 8 | id 16 | time 8 | size 8)*, by ID
//	fetch    id 16                                      → fetched: as append
//	any                                                 → refused: code 1 | what a person reads
const (
	hello       = "understudy-mail-journal/1\n"
	frameHead   = 4 + 1 + 8
	recordBound = 8 + 16 + 8
	listedEntry = recordBound + 8
	// maxListed is how many entries one answer lists; the rest is asked for from the last ID on.
	maxListed = 4096
	// overhead is what a frame has besides an entry: heads, nonce and tag.
	overhead = 256
	// maxReason bounds what a refusal says.
	maxReason = 300
)

type kind uint8

const (
	kindAppend kind = iota + 1
	kindFinish
	kindList
	kindFetch
	kindDone
	kindListed
	kindFetched
	kindRefused
)

// Codes of a refusal.
const (
	codeFailed uint8 = iota
	codeDeposed
	codeFull
	codeTooLarge
	codeUnknown
)

// ErrDeposed: the holder knows a higher epoch of the duty, so whoever asked is not the primary any more.
var ErrDeposed = errors.New("the second holder knows a higher epoch: this node is not the primary any more")

var errProtocol = errors.New("the other side does not keep to the protocol")

// sentinels are the errors that survive the wire.
func sentinels() map[uint8]error {
	return map[uint8]error{codeDeposed: ErrDeposed, codeFull: ErrFull, codeTooLarge: ErrTooLarge, codeUnknown: ErrUnknown}
}

type frame struct {
	kind   kind
	number uint64
	body   []byte
}

// readFrame refuses bodies above limit before it takes memory for them. io.EOF: the stream ended between frames.
func readFrame(r *bufio.Reader, limit int64) (f frame, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	size := int64(binary.BigEndian.Uint32(head[:])) - (frameHead - 4)
	f = frame{kind: kind(head[4]), number: binary.BigEndian.Uint64(head[5:])}
	if size < 0 || size > limit || f.kind < kindAppend || f.kind > kindRefused {
		return f, fmt.Errorf("%w: a frame of kind %d with %d bytes (at most %d)", errProtocol, f.kind, size, limit)
	}
	f.body = make([]byte, size)
	if _, err := io.ReadFull(r, f.body); err != nil {
		return f, fmt.Errorf("in the middle of a frame: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return f, nil
}

func (f frame) encode() []byte {
	b := make([]byte, 0, frameHead+len(f.body))
	b = binary.BigEndian.AppendUint32(b, uint32(frameHead-4+len(f.body)))
	b = append(b, byte(f.kind))
	b = binary.BigEndian.AppendUint64(b, f.number)
	return append(b, f.body...)
}

func recordFrame(k kind, r record) frame {
	b := make([]byte, 0, recordBound+1+len(r.body))
	b = append(b, bound(r)...)
	if r.how != 0 {
		b = append(b, byte(r.how))
	}
	return frame{kind: k, body: append(b, r.body...)}
}

// record reads the body of append, finish or fetched.
func (f frame) record() (record, error) {
	if len(f.body) < recordBound {
		return record{}, fmt.Errorf("%w: a short record", errProtocol)
	}
	r := record{epoch: binary.BigEndian.Uint64(f.body), id: ID(f.body[8:24]), at: int64(binary.BigEndian.Uint64(f.body[24:])),
		body: f.body[recordBound:]}
	if r.id == (ID{}) {
		return record{}, fmt.Errorf("%w: a record without an ID", errProtocol)
	}
	if f.kind != kindFinish {
		return r, nil
	}
	if len(r.body) != 1 || !How(r.body[0]).valid() {
		return record{}, fmt.Errorf("%w: it does not say how an entry was closed", errProtocol)
	}
	r.how, r.body = How(r.body[0]), nil
	return r, nil
}

// id reads the body of list or fetch.
func (f frame) id() (ID, error) {
	if len(f.body) != len(ID{}) {
		return ID{}, fmt.Errorf("%w: an ID of %d bytes", errProtocol, len(f.body))
	}
	return ID(f.body), nil
}

func listedFrame(list []Meta) frame {
	b := make([]byte, 0, len(list)*listedEntry)
	for _, m := range list {
		b = append(b, bound(record{epoch: m.Epoch, id: m.ID, at: m.Time.UnixNano()})...)
		b = binary.BigEndian.AppendUint64(b, uint64(m.Size))
	}
	return frame{kind: kindListed, body: b}
}

func (f frame) listed() (list []Meta, err error) {
	if len(f.body)%listedEntry != 0 || len(f.body) > maxListed*listedEntry {
		return nil, fmt.Errorf("%w: a list of %d bytes", errProtocol, len(f.body))
	}
	for b := f.body; len(b) > 0; b = b[listedEntry:] {
		list = append(list, Meta{Epoch: binary.BigEndian.Uint64(b), ID: ID(b[8:24]),
			Time: time.Unix(0, int64(binary.BigEndian.Uint64(b[24:]))), Size: int64(binary.BigEndian.Uint64(b[32:]))})
	}
	return list, nil
}

func refusedFrame(err error) frame {
	code := codeFailed
	for c, sentinel := range sentinels() {
		if errors.Is(err, sentinel) {
			code = c
		}
	}
	text := err.Error()
	return frame{kind: kindRefused, body: append([]byte{code}, text[:min(len(text), maxReason)]...)}
}

// refusal reads the body of refused.
func (f frame) refusal() error {
	if len(f.body) == 0 {
		return errProtocol
	}
	text := string(f.body[1:min(len(f.body), 1+maxReason)])
	if sentinel := sentinels()[f.body[0]]; sentinel != nil {
		return fmt.Errorf("%w (the holder says: %q)", sentinel, text)
	}
	return fmt.Errorf("the holder says: %q", text)
}
