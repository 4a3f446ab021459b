//go:build linux

// Package wire is what the source and the mirror of a data path say to each other over one stream, which hides and authenticates it (mutual
// TLS). It promises that whatever comes is either a message or an error, and takes no more memory than MaxFrame.
//
// The mirror dials and says Hello. The source answers with Offer, or with Refusal; the mirror with Accept, or with Refusal. Then the source
// compares: it asks for directories of the mirror (Ask), which come in the order asked (Children). It sends changes: Put and Patch with Data
// behind them up to an empty one, Make, Set, Take, Remove, Keep; before a Patch it asks for a signature (Sign), which comes as Data.
// Commit ends a batch; when everything up to it is durable the mirror says Durable. A change that the mirror could not stage it names
// (Failed), and the batch goes on without it. An empty Commit every second is the source's sign of life, and its answer the mirror's.
//
// A frame is the length of what follows (4 bytes, big-endian), a byte that says which message it is, and its fields in the order of the Go
// struct: strings with their length before them (uvarint), numbers as uvarints, hashes as 32 bytes, entries as below. The version is
// in Hello; whoever does not know it refuses.
package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"understudy/sidecar/datasync/tree"
)

// Version is of the format and of what the messages mean.
const Version = 1

const (
	// MaxFrame bounds a frame, and with it what a reader holds.
	MaxFrame = 1 << 20
	// MaxData is the most that one Data message brings.
	MaxData = 256 << 10
)

// ErrMalformed says that what came is no message of this version.
var ErrMalformed = errors.New("malformed message")

// Message is one of the structs below.
type Message interface {
	kind() byte
	append(b []byte) []byte
	read(r *fields)
}

// Messages of both sides.
type (
	// Hello is the mirror's first word: which path of which role it mirrors, and the highest epoch that it has taken data from.
	Hello struct {
		Version uint64
		Set     string
		Epoch   uint64
	}
	// Offer is the source's: its epoch, and the digest of its tree.
	Offer struct {
		Epoch uint64
		Root  tree.Hash
	}
	// Accept is the mirror's answer. First: it is the first time of this epoch, so that what only the mirror has is kept.
	Accept struct {
		First          bool
		Root           tree.Hash
		Entries, Bytes uint64
	}
	// Refusal ends the session.
	Refusal struct{ Why string }

	// Ask asks for the names in a directory of the mirror.
	Ask struct{ Path string }
	// Children are those; Last: there are no more to come of this directory. What is no directory has none.
	Children struct {
		Path     string
		Children []tree.Child
		Last     bool
	}

	// Sign asks for the signature of a file of the mirror. It comes as Data; nothing but the empty one: there is no such file.
	Sign struct{ Path string }
	// Data is a part of what was announced; the empty one is behind the last. Packed is one that was made shorter (package pack), from Size
	// bytes, of which there are at most MaxData.
	Data   struct{ Bytes []byte }
	Packed struct {
		Size  uint64
		Bytes []byte
	}

	// Put brings a file whole, Patch as instructions against the mirror's version (package delta).
	Put   struct{ Entry tree.Entry }
	Patch struct{ Entry tree.Entry }
	// Make makes a directory, a symbolic link, or another name of a file (Entry.Link).
	Make struct{ Entry tree.Entry }
	// Set changes owner, mode, times and attributes only.
	Set struct{ Entry tree.Entry }
	// Take moves a file of the mirror.
	Take struct {
		From  string
		Entry tree.Entry
	}
	// Remove puts into the trash, Keep into the lost+found of the session's epoch.
	Remove struct{ Path string }
	Keep   struct{ Path string }

	// Commit ends a batch. Complete: the trees are equal then, as far as the source knows. More: the next batch follows at once, so that
	// this one may become durable with that.
	Commit struct {
		Seq            uint64
		Complete, More bool
	}
	// Durable answers it, when everything up to it is.
	Durable struct{ Seq uint64 }
	// Failed says that a change was not made. It comes before the Durable of its batch.
	Failed struct{ Path, Why string }
)

func (Hello) kind() byte    { return 1 }
func (Offer) kind() byte    { return 2 }
func (Accept) kind() byte   { return 3 }
func (Refusal) kind() byte  { return 4 }
func (Ask) kind() byte      { return 5 }
func (Children) kind() byte { return 6 }
func (Sign) kind() byte     { return 7 }
func (Data) kind() byte     { return 8 }
func (Put) kind() byte      { return 9 }
func (Patch) kind() byte    { return 10 }
func (Make) kind() byte     { return 11 }
func (Set) kind() byte      { return 12 }
func (Take) kind() byte     { return 13 }
func (Remove) kind() byte   { return 14 }
func (Keep) kind() byte     { return 15 }
func (Commit) kind() byte   { return 16 }
func (Durable) kind() byte  { return 17 }
func (Failed) kind() byte   { return 18 }
func (Packed) kind() byte   { return 19 }

// empty makes the message that a kind stands for; nil: none.
func empty(kind byte) Message {
	switch kind {
	case 1:
		return &Hello{}
	case 2:
		return &Offer{}
	case 3:
		return &Accept{}
	case 4:
		return &Refusal{}
	case 5:
		return &Ask{}
	case 6:
		return &Children{}
	case 7:
		return &Sign{}
	case 8:
		return &Data{}
	case 9:
		return &Put{}
	case 10:
		return &Patch{}
	case 11:
		return &Make{}
	case 12:
		return &Set{}
	case 13:
		return &Take{}
	case 14:
		return &Remove{}
	case 15:
		return &Keep{}
	case 16:
		return &Commit{}
	case 17:
		return &Durable{}
	case 18:
		return &Failed{}
	case 19:
		return &Packed{}
	}
	return nil
}

// Writer writes messages. It is for one goroutine at a time.
type Writer struct {
	w   *bufio.Writer
	buf []byte
}

// NewWriter returns one that holds back up to 64 KiB until Flush.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriterSize(w, 64<<10)} }

// Write writes one message. One that is longer than a frame is an error, and nothing is written.
func (w *Writer) Write(m Message) error {
	w.buf = m.append(append(w.buf[:0], 0, 0, 0, 0, m.kind()))
	n := len(w.buf) - 4
	if n > MaxFrame {
		return fmt.Errorf("a message of %d bytes, at most %d can be sent", n, MaxFrame)
	}
	binary.BigEndian.PutUint32(w.buf, uint32(n))
	_, err := w.w.Write(w.buf)
	return err
}

// Flush sends what was held back.
func (w *Writer) Flush() error { return w.w.Flush() }

// Reader reads messages. It is for one goroutine at a time.
type Reader struct {
	r   *bufio.Reader
	buf []byte
}

// NewReader returns one that reads ahead.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// Read returns the next message, as a pointer. What it holds of bytes is valid until the next call. A stream that ends between messages
// is io.EOF, and within one io.ErrUnexpectedEOF; what is no message is ErrMalformed.
func (r *Reader) Read() (Message, error) {
	var head [4]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n < 1 || n > MaxFrame {
		return nil, fmt.Errorf("%w: a frame of %d bytes", ErrMalformed, n)
	}
	if cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	frame := r.buf[:n]
	if _, err := io.ReadFull(r.r, frame); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return decode(frame)
}

func decode(frame []byte) (Message, error) {
	m := empty(frame[0])
	if m == nil {
		return nil, fmt.Errorf("%w: of kind %d", ErrMalformed, frame[0])
	}
	f := &fields{b: frame[1:]}
	m.read(f)
	if f.err == "" && len(f.b) > 0 {
		f.err = fmt.Sprintf("%d bytes too many", len(f.b))
	}
	if f.err != "" {
		return nil, fmt.Errorf("%w: kind %d: %s", ErrMalformed, frame[0], f.err)
	}
	return m, nil
}
