package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"understudy/sidecar/cluster"
)

// version is written into every object. Readers refuse others.
const version = 1

// kind is the part of a key behind the cluster's name.
type kind string

const (
	claims     kind = "claims"
	tombstones kind = "tombstones"
	duties     kind = "duty"
	ties       kind = "tie"
	left       kind = "left"
	seeds      kind = "reseeds"
	heartbeats kind = "heartbeat"
)

var (
	nodeName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	dutyName   = regexp.MustCompile(`^(@cluster|[a-z][a-z0-9]{0,62})$`) // cluster.Coordinator, or a role's name
	incidentID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{0,126}$`)
)

// number writes a number so that the order of texts is that of numbers.
func number(n uint64) string { return fmt.Sprintf("%020d", n) }

// parseNumber reads what number writes, and nothing else.
func parseNumber(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && number(n) == s
}

// A text is an object's body: the version and the value, in one JSON object.
type text[T any] struct {
	V     int `json:"v"`
	Value T   `json:"value"`
}

// encode writes a value as the body of an object. Equal values give equal bytes.
func encode[T any](value T) ([]byte, error) {
	body, err := json.Marshal(text[T]{version, value})
	if err == nil && len(body) > maxObject {
		err = fmt.Errorf("%d bytes are more than an object may have (%d)", len(body), maxObject)
	}
	return body, err
}

// decode reads what encode writes, and nothing else: other spaces, orders or keys are refused.
func decode[T any](body []byte) (T, error) {
	var none T
	if len(body) > maxObject {
		return none, fmt.Errorf("has %d bytes, more than an object may have (%d)", len(body), maxObject)
	}
	var t text[T]
	if err := json.Unmarshal(body, &t); err != nil {
		return none, fmt.Errorf("is no object of ours: %w", err)
	}
	if t.V != version {
		return none, fmt.Errorf("has version %d; this program reads %d", t.V, version)
	}
	again, err := encode(t.Value)
	if err != nil {
		return none, err
	}
	if !bytes.Equal(again, body) {
		return none, fmt.Errorf("is not written as ours are: %.200q", body)
	}
	return t.Value, nil
}

// decodeDuty reads the record of a duty's epoch.
func decodeDuty(duty string, epoch uint64, body []byte) (cluster.DutyRecord, error) {
	d, err := decode[cluster.DutyRecord](body)
	if err == nil && (d.Duty != duty || d.Epoch != epoch || !nodeName.MatchString(d.Holder)) {
		err = fmt.Errorf("does not belong under its key: %.200q", body)
	}
	if err != nil {
		return cluster.DutyRecord{}, err
	}
	return d, nil
}

// decodeClaim reads the claim of a node's epoch.
func decodeClaim(node string, epoch uint64, body []byte) (cluster.Claim, error) {
	c, err := decode[cluster.Claim](body)
	if err == nil && (c.Node != node || c.Epoch != epoch || c.Machine == "") {
		err = fmt.Errorf("does not belong under its key: %.200q", body)
	}
	if err != nil {
		return cluster.Claim{}, err
	}
	return c, nil
}

// decodeTie reads the n-th tie.
func decodeTie(n uint64, body []byte) (cluster.Tie, error) {
	t, err := decode[cluster.Tie](body)
	if err == nil && (t.N != n || !nodeName.MatchString(t.Winner)) {
		err = fmt.Errorf("does not belong under its key: %.200q", body)
	}
	if err != nil {
		return cluster.Tie{}, err
	}
	return t, nil
}

// Heartbeat says that a node is there, for those who hear no beats. Only its node writes it.
type Heartbeat struct {
	Node    string `json:"node"`
	Machine string `json:"machine,omitempty"`
	Claim   uint64 `json:"claim,omitempty"`
	// Count grows with every writing since the sidecar started, so that no two are alike.
	Count  uint64   `json:"count"`
	Phase  string   `json:"phase,omitempty"`
	Holds  []string `json:"holds,omitempty"` // duties
	Commit string   `json:"commit,omitempty"`
	// Modified and Age are the store's: when it was written, and how long before the answer that was. Not part of the object.
	Modified time.Time     `json:"-"`
	Age      time.Duration `json:"-"`
}

func decodeHeartbeat(node string, body []byte) (Heartbeat, error) {
	h, err := decode[Heartbeat](body)
	if err == nil && h.Node != node {
		err = fmt.Errorf("does not belong under its key: %.200q", body)
	}
	if err != nil {
		return Heartbeat{}, err
	}
	return h, nil
}

// tombstone is the body of one.
type tombstone struct {
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"`
}

// seed is the body of a reseed.
type seed struct {
	N uint64 `json:"n"`
}

// path is a key taken apart.
type path struct {
	kind  kind
	parts []string // behind the kind
}

// cut takes a key apart. ok is false for one that is not of this cluster.
func (l *Ledger) cut(key string) (path, bool) {
	rest, ok := strings.CutPrefix(key, l.cluster+"/")
	if !ok {
		return path{}, false
	}
	parts := strings.Split(rest, "/")
	return path{kind(parts[0]), parts[1:]}, true
}

// numbered reads a path of the form <name>/<number>.
func (p path) numbered(valid *regexp.Regexp) (name string, n uint64, ok bool) {
	if len(p.parts) != 2 || !valid.MatchString(p.parts[0]) {
		return "", 0, false
	}
	n, ok = parseNumber(p.parts[1])
	return p.parts[0], n, ok && n > 0
}
