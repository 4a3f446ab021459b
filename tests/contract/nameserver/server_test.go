//go:build linux

// Package nameserver_test holds our DNS updates to real name servers: Knot and BIND, as Debian has them.
//
// The servers run from the tools tree, which `make tools` makes and UNDERSTUDY_TOOLS_TREE names, each in a network namespace of
// its own. Nothing is written to the tree, and nobody outside the namespace can reach them.
package nameserver_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cloud/localcloud/netns"
	"understudy/sidecar/dns"
)

const (
	treeVariable = "UNDERSTUDY_TOOLS_TREE"
	zone         = "blog.example"
	secret       = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
	otherSecret  = "b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcg=="
	spacePrefix  = "understudy-dns-"
)

// at is where every server listens, in its own namespace.
var at = netip.MustParseAddrPort("127.0.0.1:53")

// apex is what every zone begins with.
const apex = `$ORIGIN blog.example.
$TTL 300
@ IN SOA ns1 hostmaster 1 3600 900 604800 60
@ IN NS ns1
ns1 IN A 127.0.0.1
`

// kinds are the servers, and how each is told to serve the zone in dir: the key ddns may change it, the key idle is known
// and may not.
var kinds = map[string]func(dir string) (args []string, config string){
	"knot": func(dir string) ([]string, string) {
		return []string{"usr/sbin/knotd", "-c", dir + "/config"}, fmt.Sprintf(`
server:
    rundir: "%[1]s"
    listen: 127.0.0.1@53
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: "%[1]s"
key:
  - id: ddns
    algorithm: hmac-sha256
    secret: %[2]s
  - id: idle
    algorithm: hmac-sha256
    secret: %[2]s
acl:
  - id: may
    key: ddns
    action: update
zone:
  - domain: blog.example
    file: "%[1]s/zone"
    acl: may
    zonefile-sync: -1
`, dir, secret)
	},
	"bind": func(dir string) ([]string, string) {
		return []string{"usr/sbin/named", "-g", "-n", "1", "-c", dir + "/config"}, fmt.Sprintf(`
options {
	directory "%[1]s"; pid-file "%[1]s/pid"; session-keyfile "%[1]s/session"; managed-keys-directory "%[1]s";
	listen-on port 53 { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; dnssec-validation no; notify no;
	max-records-per-type 0; // one test has many
};
controls { };
key ddns { algorithm hmac-sha256; secret "%[2]s"; };
key idle { algorithm hmac-sha256; secret "%[2]s"; };
zone "blog.example" { type primary; file "%[1]s/zone"; update-policy { grant ddns zonesub ANY; }; };
`, dir, secret)
	},
}

// each runs test against each kind of server, with the zone's records below the apex.
func each(t *testing.T, records string, test func(t *testing.T, s *server)) {
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) { test(t, start(t, kind, records)) })
	}
}

// server is one running name server.
type server struct {
	t     *testing.T
	space *netns.Namespace
	stop  func()
	ended chan struct{} // closed when the program has ended
}

var started atomic.Int32

// start runs a server until the test ends.
func start(t *testing.T, kind, records string) *server {
	t.Helper()
	tree := os.Getenv(treeVariable)
	if tree == "" {
		t.Fatalf("%s is not set: `make tools` makes the tree with Knot and BIND in it, `make test` names it", treeVariable)
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces, so it must run as root: `make test` sees to it")
	}
	s := &server{t: t, space: newSpace(t)}
	dir := t.TempDir()
	args, config := kinds[kind](dir)
	for name, content := range map[string]string{"config": config, "zone": apex + records} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.run(tree, args)
	s.await("the server answers", func() bool { return len(s.raw("@", mdns.TypeSOA)) == 1 })
	return s
}

// run starts a program of the tree by the tree's own loader, so that it finds its own libraries and needs no chroot.
func (s *server) run(tree string, args []string) {
	libraries := filepath.Join(tree, "usr/lib/x86_64-linux-gnu")
	cmd := exec.Command(filepath.Join(tree, "lib64/ld-linux-x86-64.so.2"),
		append([]string{"--library-path", libraries + ":" + libraries + "/bind9", filepath.Join(tree, args[0])}, args[1:]...)...)
	cmd.Env = []string{"LANG=C"}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = 5 * time.Second
	// The thread that starts it waits for it, so this is the death of the whole test, not of a thread that went away.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begun, ended := make(chan error, 1), make(chan struct{})
	s.ended = ended
	go func() { // stop waits for it
		defer close(ended)
		_ = s.space.Do(func() error { // how it ends says nothing: it is told to
			err := cmd.Start()
			begun <- err
			if err == nil {
				err = cmd.Wait()
			}
			return err
		})
	}()
	if err := <-begun; err != nil {
		s.t.Fatalf("start %s: %v", args[0], err)
	}
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if s.t.Failed() {
			s.t.Logf("%s said:\n%s", args[0], log.String())
		}
	}
	s.t.Cleanup(s.stop)
}

// newSpace makes a namespace for the test and removes those of test processes that died without doing so.
func newSpace(t *testing.T) *netns.Namespace {
	t.Helper()
	names, err := os.ReadDir(netns.Dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range names {
		rest, ours := strings.CutPrefix(e.Name(), spacePrefix)
		pid, _, _ := strings.Cut(rest, "-")
		if _, err := os.Stat("/proc/" + pid); ours && os.IsNotExist(err) {
			_ = netns.Remove(e.Name()) // somebody else may be quicker
		}
	}
	name := spacePrefix + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(int(started.Add(1)))
	n, err := netns.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if err := netns.Remove(name); err != nil {
			t.Error(err)
		}
	})
	return n
}

// dial connects to the server, whatever address is asked for.
func (s *server) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return s.space.Dial(ctx, at)
}

// zone is our code's view of the server; change, if not nil, changes its configuration.
func (s *server) zone(change func(*dns.ServerConfig)) *dns.Server {
	s.t.Helper()
	cfg := dns.ServerConfig{
		Server: at.String(), Zone: zone, Own: []string{"@", "www", "web", "mail"}, Key: "ddns", Algorithm: "hmac-sha256",
		Secret: secrets.NewSecret(secret), Dial: s.dial,
	}
	if change != nil {
		change(&cfg)
	}
	z, err := dns.NewRFC2136(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return z
}

// raw asks the server without our code and without a key, and returns the answer's records of that type; nil if there
// is no answer.
func (s *server) raw(name string, kind uint16) []mdns.RR {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	full := name + "." + zone + "."
	if name == "@" {
		full = zone + "."
	}
	conn, err := s.dial(ctx, "", "")
	if err != nil {
		return nil
	}
	defer conn.Close()
	answer, _, err := new(mdns.Client).ExchangeWithConnContext(ctx, new(mdns.Msg).SetQuestion(full, kind), &mdns.Conn{Conn: conn})
	if err != nil {
		return nil
	}
	return answer.Answer
}

// await polls cond until it holds.
func (s *server) await(what string, cond func() bool) {
	s.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-s.ended:
			s.t.Fatalf("the server has ended before %s", what)
		case <-deadline:
			s.t.Fatalf("not within 20 s: %s", what)
		}
	}
}
