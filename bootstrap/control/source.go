package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// DefaultSourceTimeout is the time one source gets when Source.Timeout is zero.
const DefaultSourceTimeout = 3 * time.Minute

// dialTimeout is how long a source may take to accept a connection, and then to answer at all.
const dialTimeout = 10 * time.Second

// Source is one place the control repo can be fetched from. It is not trusted: see the package comment.
type Source struct {
	// URL is https://, http://, ssh://, git://, file://, an absolute path, or user@host:path. A password
	// in it is used but never shown; PasswordFile is better.
	URL string
	// Timeout bounds everything with this source: name lookup, connection, download. It must leave room
	// for the whole download. Zero: DefaultSourceTimeout.
	Timeout time.Duration
	// PasswordFile holds the password or token for http and https, with or without a final newline.
	PasswordFile string
	// CAFile holds further PEM certificates to trust for https. Empty: only the system's.
	CAFile string
	// Client makes the requests to an http or https URL in the place of one with the usual timeouts and the system's proxy: it brings
	// what it takes to reach and to convince a peer. Timeout bounds it. It follows no redirect, or nobody knows where its secrets go.
	Client *http.Client
	// SSHKey is an unencrypted private key file, KnownHosts an OpenSSH known_hosts file. The host key is
	// always checked. Empty KnownHosts: /etc/ssh/ssh_known_hosts.
	SSHKey, KnownHosts string
}

// String is the URL without a password, fit for logs.
func (s Source) String() string {
	if u, err := url.Parse(s.URL); err == nil && u.User != nil {
		return u.Redacted()
	}
	if scheme, rest, ok := strings.Cut(s.URL, "://"); ok { // not parseable: hide all before the last @
		if at := strings.LastIndexByte(rest, '@'); at >= 0 {
			return scheme + "://xxxxx" + rest[at:]
		}
	}
	return s.URL
}

// remote is a conversation with one source: refs once, then pack at most once, then close.
type remote interface {
	refs(ctx context.Context) (*packp.AdvRefs, error)
	// pack writes the pack that answers req to w, and returns how the source changes what is shallow.
	pack(ctx context.Context, req *packp.UploadPackRequest, w io.Writer) (packp.ShallowUpdate, error)
	close()
}

// dial chooses the remote for a source, whose bytes are added to t. Only the streams connect already here.
func (s Source) dial(ctx context.Context, t *traffic) (remote, error) {
	ep, err := transport.NewEndpoint(s.URL)
	if err != nil {
		return nil, errors.New("not a URL of a git repository") // the error would show a password
	}
	switch ep.Protocol {
	case "file":
		return openLocal(ep.Path)
	case "http", "https":
		return newHTTP(s, ep.User, t)
	case "ssh":
		return dialSSH(ctx, s, ep, t)
	case "git":
		return dialGit(ctx, ep, t)
	}
	return nil, fmt.Errorf("protocol %q: only https, http, ssh, git and file are supported", ep.Protocol)
}

// check refuses a source that no attempt could ever succeed with.
func (s Source) check() error {
	switch {
	case s.URL == "":
		return errors.New("a source of the control repo has no URL")
	case s.Timeout < 0:
		return fmt.Errorf("source %v: the timeout must not be negative", s)
	case strings.ContainsAny(s.URL, "\x00\r\n"):
		return errors.New("a source of the control repo has a control character in its URL")
	}
	if ep, err := transport.NewEndpoint(s.URL); err == nil && ep.Protocol == "file" &&
		!strings.HasPrefix(s.URL, "file:///") && !strings.HasPrefix(s.URL, "/") {
		return fmt.Errorf("source %v: neither a URL nor an absolute path", s)
	}
	return nil
}

// secretFile reads a password or key; the error names the file and never its content.
func secretFile(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}

// classify marks an error from a conversation with the reason a caller branches on.
func classify(err error) error {
	for _, known := range []error{ErrNoNetwork, ErrNoBranch, ErrNoCommit, ErrNoRepository, ErrAuth, ErrTooLarge, ErrBroken} {
		if errors.Is(err, known) {
			return err
		}
	}
	if full := diskFull(err); errors.Is(full, ErrDiskFull) {
		return full
	}
	if unreachable(err) {
		return fmt.Errorf("%w: %w", ErrNoNetwork, err)
	}
	return err
}

// unreachable errors are those that another attempt may not meet: no route, no name, nobody listening,
// a connection that broke or fell silent. A certificate that is not trusted is not among them.
func unreachable(err error) bool {
	if u, ok := errors.AsType[*url.Error](err); ok && !u.Timeout() {
		err = u.Err // net/http wraps everything in it, and it passes for a net.Error
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	for _, e := range []error{io.ErrUnexpectedEOF, io.EOF, net.ErrClosed, context.DeadlineExceeded, os.ErrDeadlineExceeded,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENETUNREACH, syscall.EHOSTUNREACH,
		syscall.ETIMEDOUT, syscall.ENETDOWN, syscall.EHOSTDOWN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Attempt is what came of one source.
type Attempt struct {
	Source string // as Source.String shows it
	Err    error  // wraps ErrNoNetwork, ErrNoBranch, ErrNoCommit, ErrNoRepository, ErrAuth, ErrTooLarge, ErrBroken or none
}

// FetchError says for every source why it did not do. errors.Is finds ErrNoNetwork in it only when that
// is true of all of them, and any other reason when one of them has it.
type FetchError struct {
	Branch   string
	Attempts []Attempt // in the order tried, at least one
}

func (e *FetchError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "fetch branch %q of the control repo", e.Branch)
	for i, a := range e.Attempts {
		fmt.Fprintf(&b, "%s %s: %v", map[bool]string{true: ":", false: ";"}[i == 0], a.Source, a.Err)
	}
	return b.String()
}

// Is implements errors.Is as described above.
func (e *FetchError) Is(target error) bool {
	for _, a := range e.Attempts {
		if errors.Is(a.Err, target) != (target == ErrNoNetwork) {
			return target != ErrNoNetwork
		}
	}
	return target == ErrNoNetwork
}

// Retry says whether fetching again later can help although nothing is repaired: some source could not be
// reached this time.
func (e *FetchError) Retry() bool {
	for _, a := range e.Attempts {
		if errors.Is(a.Err, ErrNoNetwork) {
			return true
		}
	}
	return false
}

// noSuchPlace is how a local path that does not exist is reported: like a host that does not answer, so
// that a node without the baked-in copy waits for the network.
func noSuchPlace(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: no directory %s", ErrNoNetwork, path)
	}
	return err
}
