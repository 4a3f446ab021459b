package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// streamRemote speaks gitprotocol-pack(5) over one connection, through ssh or plain. go-git's own
// clients for these connect without a deadline, and so hang on a host that accepts and says nothing.
type streamRemote struct {
	in     io.Writer
	out    io.Reader
	says   func() string // what the other side complained about, if it has a way to
	finish func()
}

func (r *streamRemote) close() { r.finish() }

func (r *streamRemote) refs(context.Context) (*packp.AdvRefs, error) {
	ad, err := decodeRefs(io.LimitReader(r.out, maxAdvertisement))
	if err == nil {
		return ad, nil
	}
	if said := r.says(); said != "" && errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%w: the server says %q", ErrNoRepository, said)
	}
	return nil, err
}

func (r *streamRemote) pack(_ context.Context, req *packp.UploadPackRequest, w io.Writer) (packp.ShallowUpdate, error) {
	var body bytes.Buffer
	if err := encodeRequest(&body, req); err != nil {
		return packp.ShallowUpdate{}, err
	}
	if _, err := r.in.Write(body.Bytes()); err != nil {
		return packp.ShallowUpdate{}, err
	}
	return decodePack(io.NopCloser(r.out), req, w)
}

// connect opens a connection that dies with the context: no read or write on it outlives the source's
// time. The returned function closes it.
func connect(ctx context.Context, ep *transport.Endpoint, port int, t *traffic) (net.Conn, func(), error) {
	if ep.Port > 0 {
		port = ep.Port
	}
	host := strings.Trim(ep.Host, "[]")
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			conn.Close()
			return nil, nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return t.count(conn), func() { stop(); conn.Close() }, nil
}

// dialGit opens the plain protocol of git-daemon(1). It has neither secrecy nor authentication; the
// signature of the commit makes up for the latter.
func dialGit(ctx context.Context, ep *transport.Endpoint, t *traffic) (*streamRemote, error) {
	conn, finish, err := connect(ctx, ep, 9418, t)
	if err != nil {
		return nil, err
	}
	req := packp.GitProtoRequest{RequestCommand: transport.UploadPackServiceName, Pathname: ep.Path, Host: ep.Host}
	if err := req.Encode(conn); err != nil {
		finish()
		return nil, err
	}
	return &streamRemote{in: conn, out: conn, says: func() string { return "" }, finish: finish}, nil
}

func dialSSH(ctx context.Context, s Source, ep *transport.Endpoint, t *traffic) (*streamRemote, error) {
	port := or(ep.Port, 22)
	addr := net.JoinHostPort(strings.Trim(ep.Host, "[]"), strconv.Itoa(port))
	config, err := sshConfig(s, ep.User, addr)
	if err != nil {
		return nil, err
	}
	conn, finish, err := connect(ctx, ep, port, t)
	if err != nil {
		return nil, err
	}
	r, err := startSSH(conn, addr, config, ep.Path, finish)
	if err != nil {
		finish()
		return nil, sshError(err)
	}
	return r, nil
}

func startSSH(conn net.Conn, addr string, config *ssh.ClientConfig, path string, finish func()) (*streamRemote, error) {
	c, chans, reqs, err := ssh.NewClientConn(conn, addr, config)
	if err != nil {
		return nil, err
	}
	session, err := ssh.NewClient(c, chans, reqs).NewSession()
	if err != nil {
		return nil, err
	}
	in, err := session.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	complaint := new(complaint)
	session.Stderr = complaint
	if err := session.Start(transport.UploadPackServiceName + " " + quote(path)); err != nil {
		return nil, err
	}
	says := func() string {
		// Its output has ended, so it exits; Wait returns after its last words. The connection's
		// deadline bounds it, and its error says less than they do.
		_ = session.Wait()
		return complaint.text()
	}
	return &streamRemote{in: in, out: out, says: says, finish: finish}, nil
}

// quote protects a path from the shell at the other end; git-shell(1) undoes it the same way.
func quote(path string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(path) + "'"
}

// complaint keeps the start of what the far side wrote to its standard error. session.Wait orders the
// writes before the read.
type complaint struct{ kept []byte }

func (c *complaint) Write(p []byte) (int, error) {
	c.kept = append(c.kept, p[:min(len(p), 500-len(c.kept))]...)
	return len(p), nil
}

func (c *complaint) text() string { return strings.TrimSpace(string(c.kept)) }

// sshError tells refused credentials and unknown host keys from a network that does not work.
func sshError(err error) error {
	_, unknown := errors.AsType[*knownhosts.KeyError](err)
	_, revoked := errors.AsType[*knownhosts.RevokedError](err)
	if unknown || revoked {
		return fmt.Errorf("%w: host key: %w (compare it, then add it to the known_hosts file)", ErrAuth, err)
	}
	// x/crypto/ssh has no type for this one.
	if strings.Contains(err.Error(), "unable to authenticate") {
		return fmt.Errorf("%w: %w", ErrAuth, err)
	}
	return err
}

func sshConfig(s Source, user, addr string) (*ssh.ClientConfig, error) {
	check, err := knownhosts.New(or(s.KnownHosts, "/etc/ssh/ssh_known_hosts"))
	if err != nil {
		return nil, fmt.Errorf("%w: known hosts: %w", ErrAuth, err)
	}
	config := &ssh.ClientConfig{
		User:              or(user, "git"),
		HostKeyCallback:   check,
		HostKeyAlgorithms: knownAlgorithms(check, addr),
		Timeout:           dialTimeout,
	}
	if s.SSHKey == "" {
		return config, nil
	}
	pem, err := secretFile(s.SSHKey)
	if err != nil {
		return nil, fmt.Errorf("%w: ssh key: %w", ErrAuth, err)
	}
	key, err := ssh.ParsePrivateKey([]byte(pem + "\n"))
	if err != nil {
		return nil, fmt.Errorf("%w: ssh key %s: %w", ErrAuth, s.SSHKey, err)
	}
	config.Auth = []ssh.AuthMethod{ssh.PublicKeys(key)}
	return config, nil
}

// knownAlgorithms asks for those host keys that the known_hosts file has for the host. Otherwise the
// server may choose another of its keys, and a known host is refused (golang.org/issue/29286).
func knownAlgorithms(check ssh.HostKeyCallback, addr string) []string {
	key, ok := errors.AsType[*knownhosts.KeyError](check(addr, &net.TCPAddr{IP: net.IPv4zero}, nobody{}))
	if !ok {
		return nil
	}
	var algorithms []string
	for _, known := range key.Want {
		if known.Key.Type() == ssh.KeyAlgoRSA {
			algorithms = append(algorithms, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512)
			continue
		}
		algorithms = append(algorithms, known.Key.Type())
	}
	return algorithms
}

// nobody is a key no host has.
type nobody struct{}

func (nobody) Type() string                        { return "nobody" }
func (nobody) Marshal() []byte                     { return []byte("nobody") }
func (nobody) Verify([]byte, *ssh.Signature) error { return errors.New("nobody's key") }
