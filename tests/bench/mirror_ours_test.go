//go:build linux

package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/admin"
	"understudy/sidecar/datasync"
	"understudy/sidecar/datasync/tree"
	"understudy/sidecar/peerlink"
	"understudy/tests/netns/wire"
)

// understudy is our side: two processes of this program, which do what a sidecar does with a role's data, over the streams that
// members have between them: TLS 1.3 with certificates of the cluster at both ends.
type understudy struct{}

// endPort is where the source listens.
const endPort = "7000"

// end is one of the processes, seen from the benchmark.
type end struct {
	*wire.Process
	in  io.Writer
	out *os.File
	say *bufio.Reader
}

func (u understudy) serve(m *mirrors) {
	m.b.Helper()
	for host, data := range map[string]string{sourceHost: m.source, mirrorHost: m.mirror} {
		m.ends[host] = m.end(host, data)
		m.await(host)
	}
}

// end starts one. It says what it has done on a pipe of its own, since a log file would have to be looked at.
func (m *mirrors) end(host, data string) *end {
	m.b.Helper()
	out, said, err := os.Pipe()
	if err != nil {
		m.b.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestMirrorEnd$", "-test.timeout=1h")
	cmd.Env = append(os.Environ(), strings.Join([]string{"UNDERSTUDY_MIRROR_END=" + host, data, filepath.Join(m.conf, host+".index")}, " "))
	cmd.ExtraFiles = []*os.File{said}
	in, err := cmd.StdinPipe()
	if err != nil {
		m.b.Fatal(err)
	}
	e := &end{Process: m.Host(host).Start("understudy-"+host, cmd), in: in, out: out, say: bufio.NewReader(out)}
	m.b.Cleanup(func() { _ = out.Close() })
	m.count(host, e.Process)
	return e
}

// tell gives an end an order.
func (m *mirrors) tell(host, order string) {
	m.b.Helper()
	if _, err := fmt.Fprintln(m.ends[host].in, order); err != nil {
		m.b.Fatalf("tell the %s %q: %v\n%s", host, order, err, m.ends[host].Text())
	}
}

// await waits until an end has done what it was told, and returns what it says about it.
func (m *mirrors) await(host string) string {
	m.b.Helper()
	e := m.ends[host]
	if err := e.out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		m.b.Fatal(err)
	}
	line, err := e.say.ReadString('\n')
	if err != nil {
		m.b.Fatalf("the %s's answer: %v\n%s", host, err, e.Text())
	}
	return strings.TrimSpace(line)
}

// durable is a barrier of the source's.
func (u understudy) durable(m *mirrors) {
	m.b.Helper()
	m.tell(sourceHost, "barrier")
	answer := m.await(sourceHost)
	if _, err := fmt.Sscanf(answer, "durable, %d watched", &m.watched); err != nil {
		m.b.Fatalf("%q: %v", answer, err)
	}
}

// sync is a session: the mirror dials, both look at what they have and compare, and the source says that the mirror is equal.
func (u understudy) sync(m *mirrors) time.Duration {
	m.b.Helper()
	began := time.Now()
	m.tell(mirrorHost, "follow")
	u.durable(m)
	took := time.Since(began)
	m.tell(mirrorHost, "leave")
	m.await(mirrorHost)
	return took
}

func (u understudy) follow(m *mirrors) *wire.Process {
	m.b.Helper()
	m.tell(mirrorHost, "follow")
	u.durable(m)
	return m.ends[sourceHost].Process
}

// TestMirrorEnd is the body of the processes that understudy starts; by itself it does nothing. It ends with its input.
func TestMirrorEnd(t *testing.T) {
	var host, data, index string
	if n, _ := fmt.Sscan(os.Getenv("UNDERSTUDY_MIRROR_END"), &host, &data, &index); n < 3 {
		return
	}
	authority, err := admin.NewAuthority(secrets.NewSecret("the cluster key of a benchmark, as long as one must be"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	links, err := peerlink.New(log, authority, host)
	if err != nil {
		t.Fatal(err)
	}
	// The policy is mail's, which has the most patterns to hold names against.
	set := datasync.Set{Name: "benchmark", Root: data, Index: index, Policy: tree.Maildir(), Accounts: tree.NewAccounts("/etc")}
	orders, say := bufio.NewScanner(os.Stdin), os.NewFile(3, "what is said")
	if host == sourceHost {
		err = runSource(t.Context(), log, set, links, orders, say)
	} else {
		err = runMirror(t.Context(), log, set, links, orders, say)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// runSource serves one mirror after the other, and takes barriers.
func runSource(ctx context.Context, log *slog.Logger, set datasync.Set, links *peerlink.Links, orders *bufio.Scanner, say io.Writer) error {
	s, err := datasync.OpenSource(log, set, 1, datasync.SourceOptions{})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", ":"+endPort)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return links.Serve(ctx, ln, map[string]peerlink.Handler{peerlink.Mirror: s.Serve}) })
	fmt.Fprintln(say, "ready")
	for orders.Scan() {
		if err := s.Barrier(ctx); err != nil {
			return err
		}
		fmt.Fprintf(say, "durable, %d watched\n", s.State().Watch.Watched)
	}
	return nil // and the process ends, whatever still runs
}

// runMirror follows the source while it is told to, and dials again when a session ends.
func runMirror(ctx context.Context, log *slog.Logger, set datasync.Set, links *peerlink.Links, orders *bufio.Scanner, say io.Writer) error {
	m, err := datasync.OpenMirror(ctx, log, set)
	if err != nil {
		return err
	}
	fmt.Fprintln(say, "ready")
	for orders.Scan() { // follow
		following, leave := context.WithCancel(ctx)
		var g errgroup.Group
		g.Go(func() error {
			for following.Err() == nil {
				conn, err := links.Dial(following, sourceAddress+":"+endPort, sourceHost, peerlink.Mirror)
				if err == nil {
					err = m.Follow(following, conn)
				}
				log.Info("the session is over", "err", err)
				select {
				case <-following.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
			return nil
		})
		orders.Scan() // leave, or the end of the input
		leave()
		if err := g.Wait(); err != nil {
			return err
		}
		fmt.Fprintln(say, "left")
	}
	return nil
}
