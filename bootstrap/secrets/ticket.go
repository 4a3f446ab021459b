package secrets

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrNoTicket says that the user data is not ours: empty, a cloud-config, a script.
var ErrNoTicket = errors.New("user data holds no understudy ticket")

// ErrBadTicket says that the user data is a ticket, but a broken one. The text around it says how.
var ErrBadTicket = errors.New("broken ticket in user data: create the machine again with the user data exactly as issued")

// MaxPeers is how many peers a ticket may name.
const MaxPeers = 16

const (
	ticketMark   = "#understudy-ticket"
	ticketHeader = ticketMark + " v1"
	ticketLabel  = "understudy join ticket v1"

	// maxUserData bounds a ticket's text in bytes: sixteen peers with the longest names fit.
	maxUserData = 8 << 10
	maxPeer     = 262 // a 255-byte name, a colon, five digits and one spare
)

// Ticket lets one machine join the cluster once, under one name. It travels in user_data, which every process on the
// machine can read; the package comment says why that is safe enough.
type Ticket struct {
	// Cluster and Node name what may be joined, and as whom.
	Cluster, Node string
	// Nonce makes the ticket one of a kind. IssueTicket draws it.
	Nonce [16]byte
	// Expires is in whole seconds, UTC, by the issuer's clock; the serving peer judges it by its own. Minutes of
	// difference between them only shorten or lengthen the ticket's life.
	Expires time.Time
	// Peers are asked in this order, each host:port, 1 to 16 of them.
	Peers []string
	// Pin is the SHA-256 of the peers' SubjectPublicKeyInfo (see ServerIdentity: all peers share one key).
	Pin [sha256.Size]byte
	// MAC is HMAC-SHA256 over all the rest, under a key derived from the cluster key.
	MAC [sha256.Size]byte
}

// IssueTicket takes a ticket with Cluster, Node, Expires, Peers and Pin set and adds nonce and MAC.
func IssueTicket(clusterKey Secret, t Ticket) (Ticket, error) {
	if len(clusterKey.Reveal()) < minClusterKey {
		return Ticket{}, fmt.Errorf("issue ticket for %s: cluster key %s", t.Node, clusterKeyShort)
	}
	if _, err := rand.Read(t.Nonce[:]); err != nil {
		return Ticket{}, fmt.Errorf("issue ticket for %s: %w", t.Node, err)
	}
	t.Expires = t.Expires.UTC().Truncate(time.Second)
	t.Peers = slices.Clone(t.Peers)
	if err := t.check(); err != nil {
		return Ticket{}, fmt.Errorf("issue ticket for %s: %w", t.Node, err)
	}
	t.MAC = t.mac(clusterKey)
	return t, nil
}

// genuine says in constant time whether the ticket was issued under clusterKey and not changed since.
func (t Ticket) genuine(clusterKey Secret) bool {
	want := t.mac(clusterKey)
	return hmac.Equal(t.MAC[:], want[:])
}

func (t Ticket) mac(clusterKey Secret) [sha256.Size]byte {
	h := hmac.New(sha256.New, deriveKey(clusterKey, ticketLabel))
	h.Write(t.canonical())
	return [sha256.Size]byte(h.Sum(nil))
}

// deriveKey gives every use of the cluster key a key of its own (RFC 5869), so that no message of one protocol means
// anything in another.
func deriveKey(clusterKey Secret, label string) []byte {
	key, err := hkdf.Key(sha256.New, []byte(clusterKey.Reveal()), nil, label, sha256.Size)
	if err != nil {
		panic(fmt.Sprintf("derive %q: %v", label, err)) // only an output of more than 255 hashes can fail
	}
	return key
}

// canonical is one encoding per ticket: every part after its length, the list of peers after its count.
func (t Ticket) canonical() []byte {
	var out []byte
	part := func(b []byte) {
		out = binary.BigEndian.AppendUint64(out, uint64(len(b)))
		out = append(out, b...)
	}
	part([]byte(t.Cluster))
	part([]byte(t.Node))
	part(t.Nonce[:])
	part(binary.BigEndian.AppendUint64(nil, uint64(t.Expires.Unix())))
	part(t.Pin[:])
	out = binary.BigEndian.AppendUint64(out, uint64(len(t.Peers)))
	for _, peer := range t.Peers {
		part([]byte(peer))
	}
	return out
}

// check refuses a ticket that could not be of use.
func (t Ticket) check() error {
	switch {
	case !keyNamePattern.MatchString(t.Cluster):
		return errors.New("cluster is not a name")
	case !keyNamePattern.MatchString(t.Node):
		return errors.New("node is not a name")
	case t.Expires.Unix() <= 0 || t.Expires.Year() > 9999:
		return errors.New("expires is out of range")
	case len(t.Peers) == 0 || len(t.Peers) > MaxPeers:
		return fmt.Errorf("needs 1 to %d peers", MaxPeers)
	case t.Pin == [sha256.Size]byte{}:
		return errors.New("pin is missing")
	}
	for _, peer := range t.Peers {
		if !isHostPort(peer) {
			return errors.New("a peer is not host:port")
		}
	}
	return nil
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	return err == nil && portErr == nil && n > 0 && strconv.FormatUint(n, 10) == port && len(s) <= maxPeer &&
		host != "" && strings.IndexFunc(host, notHostRune) < 0
}

func notHostRune(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".:-_%", r))
}

// ticketText is the ticket's JSON, in user data and in the join request alike.
type ticketText struct {
	Cluster string   `json:"cluster"`
	Node    string   `json:"node"`
	Nonce   string   `json:"nonce"`
	Expires string   `json:"expires"`
	Peers   []string `json:"peers"`
	Pin     string   `json:"pin"`
	MAC     string   `json:"mac"`
}

func (t Ticket) text() ticketText {
	return ticketText{
		Cluster: t.Cluster, Node: t.Node, Peers: t.Peers,
		Expires: t.Expires.UTC().Format(time.RFC3339),
		Nonce:   hex.EncodeToString(t.Nonce[:]), Pin: hex.EncodeToString(t.Pin[:]), MAC: hex.EncodeToString(t.MAC[:]),
	}
}

// ticket checks every field; its errors name fields and never quote them.
func (x ticketText) ticket() (Ticket, error) {
	t := Ticket{Cluster: x.Cluster, Node: x.Node, Peers: x.Peers}
	if !unhex(t.Nonce[:], x.Nonce) || !unhex(t.Pin[:], x.Pin) || !unhex(t.MAC[:], x.MAC) {
		return Ticket{}, errors.New("nonce, pin or mac is not lower-case hex of the right length")
	}
	when, err := time.Parse(time.RFC3339, x.Expires)
	if err != nil || when.UTC().Format(time.RFC3339) != x.Expires {
		return Ticket{}, errors.New("expires is not a UTC time in whole seconds")
	}
	t.Expires = when.UTC()
	return t, t.check()
}

// unhex fills dst from exactly its length of lower-case hex.
func unhex(dst []byte, s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && copy(dst, raw) == len(dst) && len(raw) == len(dst) && hex.EncodeToString(raw) == s
}

// UserData is the text to create the machine with: a line that says what it is, and one line of JSON.
func (t Ticket) UserData() string {
	text, err := json.Marshal(t.text())
	if err != nil {
		panic(fmt.Sprintf("ticket text: %v", err)) // strings always marshal
	}
	return ticketHeader + "\n" + string(text) + "\n"
}

// ParseUserData reads what UserData wrote, and nothing else: unknown, missing, repeated or reordered fields make an
// ErrBadTicket, as does a version this program does not know. Providers may add or take white space at the end. User
// data that does not begin with our mark is ErrNoTicket. The MAC is not checked: only a peer has the key.
func ParseUserData(s string) (Ticket, error) {
	if !strings.HasPrefix(strings.TrimLeft(s, "\ufeff \t\r\n"), ticketMark) {
		return Ticket{}, ErrNoTicket
	}
	if len(s) > maxUserData {
		return Ticket{}, fmt.Errorf("%w (larger than %d bytes)", ErrBadTicket, maxUserData)
	}
	body, ours := strings.CutPrefix(s, ticketHeader+"\n")
	if !ours {
		return Ticket{}, fmt.Errorf("%w (its first line is not %q: another version, or changed on the way)", ErrBadTicket, ticketHeader)
	}
	var text ticketText
	if err := strictJSON([]byte(body), &text); err != nil {
		return Ticket{}, fmt.Errorf("%w (its second line is not the JSON of a ticket)", ErrBadTicket)
	}
	t, err := text.ticket()
	if err != nil {
		return Ticket{}, fmt.Errorf("%w (%w)", ErrBadTicket, err)
	}
	if strings.TrimRight(s, " \t\r\n")+"\n" != t.UserData() {
		return Ticket{}, fmt.Errorf("%w (its JSON was rewritten)", ErrBadTicket)
	}
	return t, nil
}

// strictJSON decodes exactly one value without unknown fields. Callers drop its error, which may quote the input.
func strictJSON(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// String names the ticket without what makes it one.
func (t Ticket) String() string {
	return fmt.Sprintf("ticket for %s of %s until %s", t.Node, t.Cluster, t.Expires.UTC().Format(time.RFC3339))
}

// Format implements fmt.Formatter: every verb shows String.
func (t Ticket) Format(f fmt.State, _ rune) { writeRedacted(f, t.String()) }

// LogValue implements slog.LogValuer.
func (t Ticket) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText implements encoding.TextMarshaler, for JSON and YAML too. UserData writes the real thing.
func (t Ticket) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
