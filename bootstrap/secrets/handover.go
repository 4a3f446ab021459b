package secrets

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// HandoverPort is where a seed waits for the operator, TCP.
const HandoverPort = 7749

const (
	seedMark   = "#understudy-seed"
	seedHeader = seedMark + " v1"
	// The keys of a hand-over are made of the cluster key, so that nobody has to keep them: a launch that was cut short finds
	// them again by the intent in the ledger. What is made so tells nothing of the cluster key (RFC 5869).
	hostKeyLabel     = "understudy hand-over host key v1"
	operatorKeyLabel = "understudy hand-over operator key v1"
	// identityChannel is the one type of SSH channel that a seed accepts, and savedWord all it ever says there.
	identityChannel = "identity@understudy"
	savedWord       = "saved\n"
	// handoverTimeout bounds one connection, from the first byte to the last.
	handoverTimeout = 15 * time.Second
)

var handoverNonce = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Handover is the operator's side: how the first machine of a cluster, which has no peer to ask, gets the identity.
type Handover struct {
	cluster, node, nonce string
	host, operator       ed25519.PrivateKey
}

// NewHandover makes the hand-over to the one machine that is created for a node's intent, whose nonce has 32 hexadecimal
// digits. The same arguments make the same one.
func NewHandover(clusterKey Secret, cluster, node, nonce string) (Handover, error) {
	switch {
	case len(clusterKey.Reveal()) < minClusterKey:
		return Handover{}, fmt.Errorf("hand over to %s: cluster key %s", node, clusterKeyShort)
	case !keyNamePattern.MatchString(cluster) || !keyNamePattern.MatchString(node) || !handoverNonce.MatchString(nonce):
		return Handover{}, fmt.Errorf("hand over to %q of %q: that is no node, or its nonce is none", node, cluster)
	}
	key := func(label string) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed(deriveKey(clusterKey, strings.Join([]string{label, cluster, node, nonce}, " ")))
	}
	return Handover{cluster: cluster, node: node, nonce: nonce, host: key(hostKeyLabel), operator: key(operatorKeyLabel)}, nil
}

// seedText is the JSON in a seed's user data.
type seedText struct {
	Cluster  string `json:"cluster"`
	Node     string `json:"node"`
	Nonce    string `json:"nonce"`
	Host     string `json:"host_key"` // the private half: the machine's proof of being the one that was created
	Operator string `json:"operator"` // the public half: from nobody else an identity is taken
}

// UserData is the text to create the machine with.
func (h Handover) UserData() string {
	return seedUserData(seedText{
		Cluster: h.cluster, Node: h.node, Nonce: h.nonce, Host: hex.EncodeToString(h.host.Seed()),
		Operator: hex.EncodeToString(h.operator.Public().(ed25519.PublicKey)),
	})
}

func seedUserData(x seedText) string {
	text, err := json.Marshal(x)
	if err != nil {
		panic(fmt.Sprintf("seed text: %v", err)) // strings always marshal
	}
	return seedHeader + "\n" + string(text) + "\n"
}

// Give hands the membership to the machine at the other end of conn, which it closes. Nil: the machine has it on its disk. After
// an error it may have it, too. Nothing is sent before the machine has proved its host key.
func (h Handover) Give(ctx context.Context, conn net.Conn, m Membership) error {
	defer conn.Close()
	if err := m.check(); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(handoverTimeout)); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	if err := h.give(conn, m); err != nil {
		return fmt.Errorf("hand over to %s: %w", conn.RemoteAddr(), errors.Join(ctx.Err(), err))
	}
	return nil
}

func (h Handover) give(conn net.Conn, m Membership) error {
	operator, err := ssh.NewSignerFromKey(h.operator)
	if err != nil {
		return err
	}
	host, err := ssh.NewPublicKey(h.host.Public())
	if err != nil {
		return err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, conn.RemoteAddr().String(), &ssh.ClientConfig{
		User: "understudy", Auth: []ssh.AuthMethod{ssh.PublicKeys(operator)},
		HostKeyCallback: ssh.FixedHostKey(host), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		return err
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	channel, _, err := client.OpenChannel(identityChannel, nil) // the seed asks nothing in it
	if err != nil {
		return err
	}
	text, err := grantText(h.cluster, h.node, h.nonce, m)
	if err != nil {
		return err
	}
	if _, err := channel.Write(text); err != nil {
		return err
	}
	if err := channel.CloseWrite(); err != nil {
		return err
	}
	said, err := io.ReadAll(io.LimitReader(channel, int64(len(savedWord))))
	if err != nil {
		return err
	}
	if string(said) != savedWord {
		return errors.New("the machine does not say that it has the identity")
	}
	return nil
}

// Format implements fmt.Formatter: no verb shows a key.
func (h Handover) Format(f fmt.State, _ rune) {
	writeRedacted(f, "hand-over to "+h.node+" of "+h.cluster)
}

// Seed is the machine's side of a Handover: what its user data says.
type Seed struct {
	// Cluster and Node name what the machine begins, and as whom.
	Cluster, Node string
	nonce         string
	host          ssh.Signer
	operator      ssh.PublicKey
}

// ParseSeed reads what Handover.UserData wrote. User data that does not begin with its mark is ErrNoTicket, anything else than
// exactly that text ErrBadTicket.
func ParseSeed(s string) (Seed, error) {
	if !strings.HasPrefix(strings.TrimLeft(s, "\ufeff \t\r\n"), seedMark) {
		return Seed{}, ErrNoTicket
	}
	body, ours := strings.CutPrefix(s, seedHeader+"\n")
	var x seedText
	if !ours || len(s) > maxUserData || strictJSON([]byte(body), &x) != nil || strings.TrimRight(s, " \t\r\n")+"\n" != seedUserData(x) {
		return Seed{}, fmt.Errorf("%w (it begins a cluster, and is of another version or was changed on the way)", ErrBadTicket)
	}
	var host [ed25519.SeedSize]byte
	var operator [ed25519.PublicKeySize]byte
	if !keyNamePattern.MatchString(x.Cluster) || !keyNamePattern.MatchString(x.Node) || !handoverNonce.MatchString(x.Nonce) ||
		!unhex(host[:], x.Host) || !unhex(operator[:], x.Operator) {
		return Seed{}, fmt.Errorf("%w (cluster, node, nonce or a key is none)", ErrBadTicket)
	}
	seed := Seed{Cluster: x.Cluster, Node: x.Node, nonce: x.Nonce}
	var err error
	if seed.host, err = ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(host[:])); err != nil {
		return Seed{}, fmt.Errorf("%w (host key)", ErrBadTicket)
	}
	if seed.operator, err = ssh.NewPublicKey(ed25519.PublicKey(operator[:])); err != nil {
		return Seed{}, fmt.Errorf("%w (operator's key)", ErrBadTicket)
	}
	return seed, nil
}

// Format implements fmt.Formatter: no verb shows a key.
func (s Seed) Format(f fmt.State, _ rune) { writeRedacted(f, "seed "+s.Node+" of "+s.Cluster) }

// Receive takes the membership from whoever connects to l and has the operator's key, until save has kept one or ctx ends, whose
// cause it then returns. It closes l. heard is told of every connection that came to nothing. save is called for one connection at
// a time, and the operator hears that all is well only after it.
func (s Seed) Receive(ctx context.Context, l net.Listener, heard func(error), save func(Membership) error) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("wait for the operator: %w", err)
		}
		err = s.receive(ctx, conn, save)
		if err == nil {
			return nil
		}
		heard(fmt.Errorf("%s: %w", conn.RemoteAddr(), err))
	}
}

// receive serves one connection, and one at a time is enough: a stranger who connects again and again can keep the operator waiting,
// and learn or change nothing.
func (s Seed) receive(ctx context.Context, conn net.Conn, save func(Membership) error) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	// A stranger has less time than the operator, who shows his key at once.
	if err := conn.SetDeadline(time.Now().Add(handoverTimeout / 3)); err != nil {
		return err
	}
	cfg := &ssh.ServerConfig{MaxAuthTries: 2, PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), s.operator.Marshal()) {
			return nil, errors.New("not the operator's key")
		}
		return &ssh.Permissions{}, nil
	}}
	cfg.AddHostKey(s.host)
	c, channels, requests, err := ssh.NewServerConn(conn, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := conn.SetDeadline(time.Now().Add(handoverTimeout)); err != nil {
		return err
	}
	return s.serve(channels, requests, save)
}

// serve takes one channel with one membership on it. The first other request or channel ends it.
func (s Seed) serve(channels <-chan ssh.NewChannel, requests <-chan *ssh.Request, save func(Membership) error) error {
	for {
		select {
		case r, ok := <-requests:
			if !ok {
				return errors.New("ended before the identity was handed over")
			}
			if r.WantReply {
				_ = r.Reply(false, nil)
			}
		case n, ok := <-channels:
			switch {
			case !ok:
				return errors.New("ended before the identity was handed over")
			case n.ChannelType() != identityChannel:
				_ = n.Reject(ssh.UnknownChannelType, "only the identity is taken here")
				continue
			}
			channel, _, err := n.Accept() // nothing is asked in it, and the connection has a deadline
			if err != nil {
				return err
			}
			if err := s.take(channel, save); err != nil {
				return err
			}
			for range channels { // until the operator has read the answer and goes, or the deadline
			}
			return nil
		}
	}
}

func (s Seed) take(channel io.ReadWriteCloser, save func(Membership) error) error {
	text, err := io.ReadAll(io.LimitReader(channel, maxJoinAnswer+1))
	switch {
	case err != nil:
		return err
	case len(text) > maxJoinAnswer:
		return fmt.Errorf("more than %d bytes", maxJoinAnswer)
	}
	m, err := readGrant(text, s.Cluster, s.Node, s.nonce)
	if err != nil {
		return err
	}
	if err := save(m); err != nil {
		return err
	}
	// The identity is kept: an operator who does not hear so sees by the ledger that the machine goes on.
	_, _ = io.WriteString(channel, savedWord)
	_ = channel.Close()
	return nil
}
