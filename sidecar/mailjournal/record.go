package mailjournal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// record is what a segment holds: an entry (how is zero), or the closing of one (no body).
type record struct {
	how   How
	epoch uint64
	id    ID
	at    int64 // Unix time in ns
	body  []byte
}

// A segment begins with segmentMagic, the highest epoch known when it was begun, and the checksum of both. Each record has a head, checksummed
// for itself so that a damaged body does not hide where the next record begins, and its body:
//
//	magic 4 | how 1 | epoch 8 | id 16 | time 8 | body's length 4 | body's CRC-32C 4 | head's CRC-32C 4
//
// Both checksums begin with the segment's salt: a message may hold anything, also the bytes of a record, and must not
// be taken for one when the place of the next record is searched for behind damage.
const (
	segmentMagic = "UMJSEG1\n"
	segmentHead  = len(segmentMagic) + 8 + 4
	recordMagic  = "\xf5UMJ"
	recordHead   = 4 + 1 + 8 + 16 + 8 + 4 + 4 + 4
)

var (
	errTorn    = errors.New("the record is incomplete")
	errHead    = errors.New("no record begins here")
	errBody    = errors.New("the record's checksum is wrong")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func checksum(salt uint64, data []byte) uint32 {
	return crc32.Update(crc32.Checksum(binary.BigEndian.AppendUint64(nil, salt), castagnoli), castagnoli, data)
}

func (r record) size() int64 { return int64(recordHead + len(r.body)) }

func (r record) meta() Meta {
	return Meta{ID: r.id, Epoch: r.epoch, Time: time.Unix(0, r.at), Size: r.size()}
}

func (r record) append(b []byte, salt uint64) []byte {
	start := len(b)
	b = append(b, recordMagic...)
	b = append(b, byte(r.how))
	b = binary.BigEndian.AppendUint64(b, r.epoch)
	b = append(b, r.id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.body)))
	b = binary.BigEndian.AppendUint32(b, checksum(salt, r.body))
	b = binary.BigEndian.AppendUint32(b, checksum(salt, b[start:]))
	return append(b, r.body...)
}

// decodeRecord reads the record at the front of b, whose body shares b's memory. With errBody the size is still right.
func decodeRecord(b []byte, salt uint64) (r record, size int64, err error) {
	if len(b) < recordHead {
		return r, 0, errTorn
	}
	head := b[:recordHead]
	how, length := How(head[4]), binary.BigEndian.Uint32(head[37:])
	if string(head[:4]) != recordMagic || binary.BigEndian.Uint32(head[45:]) != checksum(salt, head[:45]) ||
		how != 0 && !how.valid() {
		return r, 0, errHead
	}
	if uint64(len(b)-recordHead) < uint64(length) {
		return r, 0, errTorn
	}
	r = record{how: how, epoch: binary.BigEndian.Uint64(head[5:]), id: ID(head[13:29]), at: int64(binary.BigEndian.Uint64(head[29:])),
		body: b[recordHead : recordHead+int(length)]}
	if binary.BigEndian.Uint32(head[41:]) != checksum(salt, r.body) {
		return r, r.size(), errBody
	}
	return r, r.size(), nil
}

// Damage is a part of a segment that could not be read when the journal was opened.
type Damage struct {
	Segment        string // the file's name
	Offset, Length int64  // bytes
	// Torn: it was the end of the file, as a crash in the middle of a write leaves it, and was cut off. Unless the disk did
	// it, nobody was given a 250 for that. Otherwise an acknowledged message may be among what was lost.
	Torn bool
	Why  string
}

func (d Damage) String() string {
	what := "damaged"
	if d.Torn {
		what = "cut off"
	}
	return fmt.Sprintf("%s: %d bytes at %d %s: %s", d.Segment, d.Length, d.Offset, what, d.Why)
}

// scan calls each for every whole record of a segment, and returns what could not be read. Only the last of it can be torn.
func scan(name string, data []byte, salt uint64, each func(offset int64, r record)) (damage []Damage, epoch uint64) {
	if len(data) < segmentHead {
		return []Damage{{Segment: name, Length: int64(len(data)), Torn: true, Why: "the segment's head is incomplete"}}, 0
	}
	if string(data[:len(segmentMagic)]) == segmentMagic && binary.BigEndian.Uint32(data[segmentHead-4:]) == checksum(salt, data[:segmentHead-4]) {
		epoch = binary.BigEndian.Uint64(data[len(segmentMagic):])
	} else {
		damage = append(damage, Damage{Segment: name, Length: int64(segmentHead), Why: "the segment's head is damaged"})
	}
	for at := int64(segmentHead); at < int64(len(data)); {
		r, size, err := decodeRecord(data[at:], salt)
		switch {
		case err == nil:
			each(at, r)
			epoch = max(epoch, r.epoch)
		case errors.Is(err, errBody):
			damage = append(damage, Damage{Segment: name, Offset: at, Length: size, Why: fmt.Sprintf("%v (entry %v)", err, r.id)})
		default:
			size = nextRecord(data[at+1:], salt) + 1
			whole := at+size < int64(len(data))
			damage = append(damage, Damage{Segment: name, Offset: at, Length: size, Torn: !whole, Why: err.Error()})
		}
		at += size
	}
	return damage, epoch
}

// nextRecord returns where in b the next record begins whose head is right and whose body is there, or len(b).
func nextRecord(b []byte, salt uint64) int64 {
	at := 0
	for {
		i := bytes.Index(b[at:], []byte(recordMagic))
		if i < 0 {
			return int64(len(b))
		}
		at += i
		if _, _, err := decodeRecord(b[at:], salt); err == nil || errors.Is(err, errBody) {
			return int64(at)
		}
		at++
	}
}
