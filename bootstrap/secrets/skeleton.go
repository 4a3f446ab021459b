package secrets

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"filippo.io/age"
)

var errNotBuilt = errors.New("not built yet")

func (b Bundle) WriteFiles(dir string, groups ...string) error { return errNotBuilt }

type Template struct{}

func ParseTemplate(name string, data []byte) (Template, error) { return Template{}, errNotBuilt }

// Generate returns b with what is missing filled in, and the names ("group/file") it made.
func Generate(b Bundle, t Template, now time.Time) (Bundle, []string, error) {
	return b, nil, errNotBuilt
}

type Ticket struct {
	Cluster, Node string
	Nonce         [16]byte
	Expires       time.Time
	Peers         []string // host:port
	Pin           [32]byte
	MAC           [32]byte
}

var ErrNoTicket = errors.New("no ticket")

// IssueTicket completes t (Cluster, Node, Expires, Peers, Pin) with a fresh nonce and the MAC.
func IssueTicket(clusterKey Secret, t Ticket) (Ticket, error) { return t, errNotBuilt }
func (t Ticket) UserData() string                             { return "" }
func ParseUserData(s string) (Ticket, error)                  { return Ticket{}, errNotBuilt }

type JoinOptions struct {
	MachineID string
	StateDir  string // where the newcomer's own join key is kept until SaveMembership; empty: only in memory
	Dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	Log       *slog.Logger
}

type RefusedError struct{ Peer, Reason, Hint string }

func (e *RefusedError) Error() string { return e.Reason }

// UnreachableError: ctx ended before any peer answered.
type UnreachableError struct{ Err error }

func (e *UnreachableError) Error() string { return e.Err.Error() }

func Join(ctx context.Context, t Ticket, o JoinOptions) (Membership, error) {
	return Membership{}, errNotBuilt
}

type Membership struct {
	Identity       *age.X25519Identity
	AllowedSigners []byte
	OldestCommit   string
}

func SaveMembership(dir string, m Membership) error { return errNotBuilt }
func LoadMembership(dir string) (Membership, error) { return Membership{}, errNotBuilt } // fs.ErrNotExist before the join

// NewServerIdentity makes a random one; ServerIdentity derives the same one on every member.
func NewServerIdentity() (tls.Certificate, [32]byte, error) {
	return tls.Certificate{}, [32]byte{}, errNotBuilt
}
func ServerIdentity(clusterKey Secret) (tls.Certificate, [32]byte, error) {
	return tls.Certificate{}, [32]byte{}, errNotBuilt
}

type Used interface {
	Claim(ctx context.Context, nonce, recipient string) error // ErrUsed: another recipient was first; other errors: try again
}

var ErrUsed = errors.New("ticket is used")
var ErrWrongSource = errors.New("wrong source")

type MemoryUsed struct{}

func (*MemoryUsed) Claim(ctx context.Context, nonce, recipient string) error { return errNotBuilt }

type JoinConfig struct {
	Log         *slog.Logger
	Cluster     string
	ClusterKey  Secret
	Certificate tls.Certificate
	Membership  func(ctx context.Context) (Membership, error)
	// Source: ErrWrongSource refuses, any other error means "cannot tell now, try again".
	Source func(ctx context.Context, t Ticket, remote netip.AddrPort, machineID string) error
	Used   Used
}
type JoinServer struct{}

func NewJoinServer(c JoinConfig) (*JoinServer, error)                  { return nil, errNotBuilt }
func (s *JoinServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {}
func (s *JoinServer) Serve(ctx context.Context, ln net.Listener) error { return errNotBuilt }
