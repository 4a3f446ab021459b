package secrets

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"filippo.io/age"
)

const (
	dialTimeout = 5 * time.Second
	// askTimeout bounds one peer's whole answer; the peer itself gives up after answerTimeout.
	askTimeout = 20 * time.Second

	// The wait between two rounds over all peers doubles from firstWait to lastWait; half of it is jitter.
	firstWait = 500 * time.Millisecond
	lastWait  = 15 * time.Second
)

// JoinOptions say who is asking.
type JoinOptions struct {
	// MachineID is this machine's ID at the provider, from the metadata service. Required.
	MachineID string
	// StateDir is where the node keeps what SaveMembership writes. The join key waits there for the answer, so that a
	// crash in between loses nothing. Empty: the key is in memory only, and a ticket whose answer is lost with the
	// process is spent.
	StateDir string
	// Dial connects to a peer. Nil: an ordinary TCP dial that gives up after 5 s.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log hears of each peer that could not be asked and of each round. Required.
	Log *slog.Logger
}

// RefusedError is a peer's final no; asking again with the same ticket is of no use.
type RefusedError struct {
	Peer   string
	Reason Reason
	Hint   string // the next thing to do, in the peer's words
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s refuses the join: %s: %s", e.Peer, e.Reason, e.Hint)
}

// UnreachableError says that the context ended before any peer had given an answer.
type UnreachableError struct {
	Peers []error // the newest from each peer that was asked
	Cause error   // why the context ended
}

// Error implements error.
func (e *UnreachableError) Error() string {
	if len(e.Peers) == 0 {
		return fmt.Sprintf("no peer was asked for the cluster's identity: %v", e.Cause)
	}
	last := strings.ReplaceAll(errors.Join(e.Peers...).Error(), "\n", "; ")
	return fmt.Sprintf("no peer gave the cluster's identity (%v): %s: check that one of them runs and that its port is open to this machine", e.Cause, last)
}

// Unwrap lets callers find the context's error and those of the peers.
func (e *UnreachableError) Unwrap() []error { return append(slices.Clone(e.Peers), e.Cause) }

// Join asks the ticket's peers, in order and round after round, for the membership, until one grants or refuses it or
// ctx ends. Errors: *RefusedError, *UnreachableError, and ErrBadTicket or others before anybody was asked. After an
// error the ticket may have been spent on this machine's join key; asking again from the same StateDir is safe.
func Join(ctx context.Context, t Ticket, o JoinOptions) (Membership, error) {
	if err := t.check(); err != nil {
		return Membership{}, fmt.Errorf("join: %w (%w)", ErrBadTicket, err)
	}
	if !machinePattern.MatchString(o.MachineID) {
		return Membership{}, fmt.Errorf("join: machine ID %q is not one: the metadata service must name it", o.MachineID)
	}
	key, err := joinKey(o.StateDir)
	if err != nil {
		return Membership{}, fmt.Errorf("join: %w", err)
	}
	body, err := json.Marshal(joinRequest{Ticket: t.text(), Recipient: key.Recipient().String(), MachineID: o.MachineID})
	if err != nil {
		return Membership{}, fmt.Errorf("join: %w", err)
	}
	client := newClient(t, o)
	said := make([]error, len(t.Peers)) // why each peer gave nothing
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		for i, peer := range t.Peers {
			m, err := ask(ctx, client, peer, body, t, key)
			if refused := (*RefusedError)(nil); err == nil || errors.As(err, &refused) {
				return m, err
			}
			if ctx.Err() == nil || said[i] == nil { // that the time was up is no better answer than its last one
				said[i] = err
			}
			if ctx.Err() != nil {
				return Membership{}, unreachable(ctx, said)
			}
			o.Log.Warn("peer did not answer the join", "peer", peer, "err", err)
		}
		pause := wait/2 + rand.N(wait/2)
		o.Log.Info("no peer answered the join; asking again", "peers", len(t.Peers), "wait", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return Membership{}, unreachable(ctx, said)
		}
	}
}

func unreachable(ctx context.Context, said []error) *UnreachableError {
	return &UnreachableError{Peers: slices.DeleteFunc(said, func(err error) bool { return err == nil }), Cause: context.Cause(ctx)}
}

// newClient speaks HTTP/1.1 over pinned TLS, directly: no proxy, no redirect, no kept connection.
func newClient(t Ticket, o JoinOptions) *http.Client {
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	return &http.Client{
		Timeout: askTimeout,
		Transport: &http.Transport{
			DialContext:            dial,
			TLSClientConfig:        pinnedTo(t.Pin),
			TLSHandshakeTimeout:    dialTimeout,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask puts the request to one peer. Any error but *RefusedError means: try the next.
func ask(ctx context.Context, client *http.Client, peer string, body []byte, t Ticket, key *age.X25519Identity) (Membership, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+peer+joinPath, bytes.NewReader(body))
	if err != nil {
		return Membership{}, fmt.Errorf("ask %s: %w", peer, err)
	}
	req.Header.Set("Content-Type", jsonType)
	resp, err := client.Do(req)
	if err != nil {
		return Membership{}, fmt.Errorf("ask %s: %w", peer, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxJoinAnswer+1))
	if err != nil {
		return Membership{}, fmt.Errorf("ask %s: %w", peer, err)
	}
	if len(answer) > maxJoinAnswer {
		return Membership{}, fmt.Errorf("ask %s: answer is larger than %d bytes", peer, maxJoinAnswer)
	}
	if resp.StatusCode != http.StatusOK {
		return Membership{}, refusal(peer, resp, answer)
	}
	m, err := openAnswer(answer, t, key)
	if err != nil {
		return Membership{}, fmt.Errorf("ask %s: %w", peer, err)
	}
	return m, nil
}

// refusal makes a final *RefusedError of a 4xx problem, and an ordinary error of any other answer.
func refusal(peer string, resp *http.Response, body []byte) error {
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var p joinProblem
	if err != nil || media != problemType || json.Unmarshal(body, &p) != nil {
		return fmt.Errorf("ask %s: unexpected answer with status %d", peer, resp.StatusCode)
	}
	reason, hint := printable(p.Title), printable(p.Detail)
	if resp.StatusCode >= 400 && resp.StatusCode < 500 {
		return &RefusedError{Peer: peer, Reason: Reason(reason), Hint: hint}
	}
	return fmt.Errorf("ask %s: %s: %s", peer, reason, hint)
}

// printable bounds a peer's words and keeps terminal controls out of our log.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), maxHint)], "")
}
