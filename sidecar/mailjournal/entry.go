package mailjournal

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ID names an entry: 128 random bits, so that nobody who was not told one can guess it. The zero ID is invalid.
type ID [16]byte

// NewID returns a new random ID.
func NewID() (id ID) {
	rand.Read(id[:]) // never fails: crypto/rand ends the program first
	return id
}

// ParseID reads what ID.String wrote.
func ParseID(s string) (id ID, err error) {
	if len(s) != hex.EncodedLen(len(id)) || strings.ToLower(s) != s {
		return id, fmt.Errorf("%.40q is not 32 lower-case hexadecimal digits", s)
	}
	if _, err = hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("%.40q: %w", s, err)
	}
	return id, nil
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// How an entry was closed. Zero: it is open.
type How uint8

const (
	// Delivered: the Maildir files are on the mirror's disk as well.
	Delivered How = iota + 1
	// Relayed: the relay answered for it, or its sender has been told that it failed. Both are Postfix's words.
	Relayed
	// Refused: nobody was given a 250 for it, so its sender still has it.
	Refused
)

func (h How) valid() bool { return h >= Delivered && h <= Refused }

func (h How) String() string {
	switch h {
	case 0:
		return "open"
	case Delivered:
		return "delivered"
	case Relayed:
		return "relayed"
	case Refused:
		return "refused"
	}
	return fmt.Sprintf("how %d", uint8(h))
}

// Recipient is one RCPT TO.
type Recipient struct {
	Address string   // without the angle brackets
	Args    []string // ESMTP parameters as the client gave them, such as NOTIFY=NEVER
}

// Entry is one message that was accepted, or may have been.
type Entry struct {
	Meta
	// Queue is Postfix's queue ID of the message; empty where it is not known.
	Queue string
	// From is the envelope's sender without brackets, empty for a bounce, and FromArgs its ESMTP parameters.
	From     string
	FromArgs []string
	To       []Recipient
	// Message is header and body with CRLF line ends, without any X-Understudy-Journal.
	Message []byte
}

// Meta is what is known of an entry without reading it.
type Meta struct {
	ID ID
	// Epoch is the duty's epoch when the entry was made.
	Epoch uint64
	// Time is the wall clock of the node that made it, to the nanosecond. Nothing is decided by it.
	Time time.Time
	// Size is what the entry takes in its journal, in bytes. Zero in an entry that is yet to be appended.
	Size int64
}

const (
	entryVersion = 1
	// maxStrings bounds recipients, and the arguments of each: Postfix's smtpd_recipient_limit is 1000.
	maxStrings = 10_000
)

// encode returns the part of e that the record's head does not hold.
func (e Entry) encode() []byte {
	b := make([]byte, 0, len(e.Message)+512)
	b = append(b, entryVersion)
	b = appendString(b, e.Queue)
	b = appendString(b, e.From)
	b = appendStrings(b, e.FromArgs)
	b = binary.AppendUvarint(b, uint64(len(e.To)))
	for _, to := range e.To {
		b = appendString(b, to.Address)
		b = appendStrings(b, to.Args)
	}
	return append(b, e.Message...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

var errEntry = errors.New("the entry does not parse")

// decodeEntry reads what encode wrote. Message shares memory with b.
func decodeEntry(meta Meta, b []byte) (Entry, error) {
	if len(b) == 0 || b[0] != entryVersion {
		return Entry{}, fmt.Errorf("%w: it is of another version of this program", errEntry)
	}
	r := reader{rest: b[1:]}
	e := Entry{Meta: meta, Queue: r.string(), From: r.string(), FromArgs: r.strings()}
	for range r.count() {
		if r.bad {
			break
		}
		e.To = append(e.To, Recipient{Address: r.string(), Args: r.strings()})
	}
	if r.bad {
		return Entry{}, errEntry
	}
	e.Message = r.rest
	return e, nil
}

// reader takes values off the front of rest; once bad, it returns zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) count() int {
	n := r.number()
	// Each takes a byte at least, so that a short input cannot ask for much memory.
	if n > maxStrings || n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return 0
	}
	return int(n)
}

func (r *reader) string() string {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *reader) strings() (list []string) {
	for range r.count() {
		list = append(list, r.string())
	}
	return list
}
