package control

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func newKey(t testing.TB) (ssh.Signer, ed25519.PrivateKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, private
}

// serveSSH serves the repository by an SSH server that runs the real git-upload-pack for one known key.
// The host has an RSA key besides, so that the client must ask for the one it knows.
func (o *origin) serveSSH() Source {
	o.t.Helper()
	host, _ := newKey(o.t)
	user, private := newKey(o.t)
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(user.PublicKey().Marshal()) {
			return nil, io.EOF
		}
		return nil, nil
	}}
	config.AddHostKey(otherHostKey(o.t))
	config.AddHostKey(host)
	addr := listen(o.t, func(conn *net.TCPConn) { o.session(conn, config) })
	dir := o.t.TempDir()
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		o.t.Fatal(err)
	}
	s := Source{URL: "ssh://git@" + addr + o.dir + "/.git", SSHKey: filepath.Join(dir, "key"), KnownHosts: filepath.Join(dir, "known_hosts")}
	s.URL = strings.Replace(s.URL, o.dir, filepath.Dir(o.dir)+"/origin", 1)
	if err := os.WriteFile(s.SSHKey, pem.EncodeToMemory(block), 0o600); err != nil {
		o.t.Fatal(err)
	}
	known := knownhosts.Line([]string{addr}, host.PublicKey()) + "\n"
	if err := os.WriteFile(s.KnownHosts, []byte(known), 0o644); err != nil {
		o.t.Fatal(err)
	}
	return s
}

func (o *origin) session(conn net.Conn, config *ssh.ServerConfig) {
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	defer server.Close()
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		for r := range requests {
			if r.Type != "exec" {
				r.Reply(false, nil)
				continue
			}
			r.Reply(true, nil)
			cmd := exec.Command("/bin/sh", "-c", string(r.Payload[4:]))
			cmd.Env, cmd.Stdout, cmd.Stderr = o.env, channel, channel.Stderr()
			in, err := cmd.StdinPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				return
			}
			go func() { io.Copy(in, channel); in.Close() }()
			err = cmd.Wait()
			status := byte(0)
			if err != nil {
				status = 1
			}
			channel.SendRequest("exit-status", false, []byte{0, 0, 0, status})
			channel.Close()
		}
	}
}

func otherHostKey(t testing.TB) ssh.Signer {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}
