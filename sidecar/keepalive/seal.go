//go:build linux

package keepalive

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"understudy/bootstrap/secrets"
)

const (
	magic      = "ust\x01" // the last byte is the version
	fixedBytes = 21        // of the header, before the name
)

// header is the part of a beat that everybody can read.
type header struct {
	session, seq uint64
	sender       []byte
	size         int
}

func appendHeader(b []byte, sender string, session, seq uint64) []byte {
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint64(b, session)
	b = binary.BigEndian.AppendUint64(b, seq)
	return append(append(b, byte(len(sender))), sender...)
}

// parseHeader returns an empty reason if packet begins with a header.
func parseHeader(packet []byte) (header, Reason) {
	if len(packet) < fixedBytes || string(packet[:len(magic)-1]) != magic[:len(magic)-1] {
		return header{}, NotABeat
	}
	if packet[len(magic)-1] != magic[len(magic)-1] {
		return header{}, OtherVersion
	}
	h := header{
		session: binary.BigEndian.Uint64(packet[4:]), seq: binary.BigEndian.Uint64(packet[12:]),
		size: fixedBytes + int(packet[fixedBytes-1]),
	}
	if len(packet) < h.size || h.session == 0 || h.seq == 0 {
		return header{}, NotABeat
	}
	h.sender = packet[fixedBytes:h.size]
	return h, ""
}

// keys makes the key of each session. It keeps the extract of the cluster key only.
type keys struct{ extract []byte }

func newKeys(cluster secrets.Secret) (keys, error) {
	extract, err := hkdf.Extract(sha256.New, []byte(cluster.Reveal()), []byte("understudy keepalive 1"))
	if err != nil {
		return keys{}, fmt.Errorf("derive the keys of beats: %w", err)
	}
	return keys{extract}, nil
}

func (k keys) of(node string, session uint64) sealer {
	key, err := hkdf.Expand(sha256.New, k.extract, string(binary.BigEndian.AppendUint64(nil, session))+node, 32)
	if err != nil {
		panic("hkdf of 32 bytes: " + err.Error()) // fails above 255 × 32 bytes only, RFC 5869
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("aes of 32 bytes: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("gcm of aes: " + err.Error())
	}
	return sealer{session: session, aead: aead, nonce: new([12]byte)}
}

// sealer seals or opens the beats of one session. It is not for use by two goroutines at once.
type sealer struct {
	session uint64
	aead    cipher.AEAD
	nonce   *[12]byte
}

// seal appends the sealed body to a packet that holds the header.
func (s sealer) seal(packet []byte, seq uint64, body []byte) []byte {
	binary.BigEndian.PutUint64(s.nonce[4:], seq)
	return s.aead.Seal(packet, s.nonce[:], body, packet)
}

// open appends the body of a packet to b.
func (s sealer) open(b []byte, h header, packet []byte) ([]byte, error) {
	binary.BigEndian.PutUint64(s.nonce[4:], h.seq)
	return s.aead.Open(b, s.nonce[:], packet[h.size:], packet[:h.size])
}

// newSession is a random number that is not zero.
func newSession() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return max(binary.BigEndian.Uint64(b[:]), 1)
}
