package secrets

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"filippo.io/age"
)

const (
	joinPath    = "/v1/join"
	controlPath = "/v1/control.git"
	jsonType    = "application/json"
	problemType = "application/problem+json" // RFC 9457

	// Bounds of both bodies, in bytes.
	maxJoinRequest = 16 << 10
	maxJoinAnswer  = 1 << 20

	maxAllowedSigners = 256 << 10
	maxHint           = 512
)

var (
	machinePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)
	commitPattern  = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

// joinRequest is what the newcomer sends.
type joinRequest struct {
	Ticket    ticketText `json:"ticket"`
	Recipient string     `json:"recipient"`  // the newcomer's age public key
	MachineID string     `json:"machine_id"` // as the provider names the machine
}

// joinAnswer is the body of a 200: a joinGrant, sealed to the newcomer's key.
type joinAnswer struct {
	Sealed []byte `json:"sealed"`
}

// joinGrant names the ticket it answers, so that no answer fits another question.
type joinGrant struct {
	Cluster        string `json:"cluster"`
	Node           string `json:"node"`
	Nonce          string `json:"nonce"`
	Identity       string `json:"identity"`
	AllowedSigners []byte `json:"allowed_signers,omitempty"`
	OldestCommit   string `json:"oldest_commit,omitempty"`
	Commit         string `json:"commit,omitempty"`
}

// joinProblem is the body of every refusal.
type joinProblem struct {
	Title  string `json:"title"`  // the reason, one of the Reason constants where the answer is final
	Status int    `json:"status"` // as in the HTTP status line
	Detail string `json:"detail"` // the next thing to do
}

// joiner is a request that has passed every check that needs nothing but the request.
type joiner struct {
	ticket    Ticket
	recipient *age.X25519Recipient
	machineID string
}

// parseJoinRequest reads a newcomer's body. Its errors do not quote it.
func parseJoinRequest(body []byte) (joiner, error) {
	var req joinRequest
	if err := strictJSON(body, &req); err != nil {
		return joiner{}, errors.New("not the JSON of a join request")
	}
	t, err := req.Ticket.ticket()
	if err != nil {
		return joiner{}, fmt.Errorf("ticket: %w", err)
	}
	recipient, err := age.ParseX25519Recipient(req.Recipient)
	if err != nil {
		return joiner{}, errors.New("recipient is not an age X25519 public key")
	}
	if !machinePattern.MatchString(req.MachineID) {
		return joiner{}, errors.New("machine_id is not one")
	}
	return joiner{ticket: t, recipient: recipient, machineID: req.MachineID}, nil
}

// grant seals the membership to the newcomer.
func (j joiner) grant(m Membership) (joinAnswer, error) {
	plain, err := grantText(j.ticket.Cluster, j.ticket.Node, hex.EncodeToString(j.ticket.Nonce[:]), m)
	if err != nil {
		return joinAnswer{}, err
	}
	var sealed bytes.Buffer
	if err := encrypt(&sealed, plain, j.recipient); err != nil {
		return joinAnswer{}, fmt.Errorf("seal membership: %w", err)
	}
	return joinAnswer{Sealed: sealed.Bytes()}, nil
}

// openAnswer takes a membership out of the body of a 200. Its errors do not quote it.
func openAnswer(body []byte, t Ticket, key *age.X25519Identity) (Membership, error) {
	var answer joinAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return Membership{}, errors.New("answer is not the JSON of a join")
	}
	plain, err := decrypt(bytes.NewReader(answer.Sealed), maxJoinAnswer, key)
	if err != nil {
		return Membership{}, fmt.Errorf("answer: %w", err)
	}
	return readGrant(plain, t.Cluster, t.Node, hex.EncodeToString(t.Nonce[:]))
}

// grantText is the membership for one node. Its errors do not quote it.
func grantText(cluster, node, nonce string, m Membership) ([]byte, error) {
	plain, err := json.Marshal(joinGrant{
		Cluster: cluster, Node: node, Nonce: nonce,
		Identity: m.Identity.String(), AllowedSigners: m.AllowedSigners, OldestCommit: m.OldestCommit, Commit: m.Commit,
	})
	if err != nil {
		return nil, errors.New("cannot encode the membership")
	}
	return plain, nil
}

// readGrant reads what grantText wrote for the same node.
func readGrant(plain []byte, cluster, node, nonce string) (Membership, error) {
	var g joinGrant
	if err := json.Unmarshal(plain, &g); err != nil {
		return Membership{}, errors.New("answer holds no membership")
	}
	if g.Cluster != cluster || g.Node != node || g.Nonce != nonce {
		return Membership{}, errors.New("answer is for another machine")
	}
	identity, err := age.ParseX25519Identity(g.Identity)
	if err != nil {
		return Membership{}, errors.New("answer holds no age identity")
	}
	m := Membership{Identity: identity, AllowedSigners: g.AllowedSigners, OldestCommit: g.OldestCommit, Commit: g.Commit}
	return m, m.check()
}
