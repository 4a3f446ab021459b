//go:build linux

package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
	"understudy/sidecar/boottime"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
	"understudy/sidecar/keepalive"
)

// TestMembershipNode is the body of the processes that BenchmarkMembership starts; by itself it does nothing. It says "at" and
// its address, is told "join" and everybody's, says "ready" when it knows all of them to be alive, then "dead" and "alive"
// with a name as that changes, and "usage" with its CPU time in nanoseconds when it is told so. It ends with its input.
func TestMembershipNode(t *testing.T) {
	kind, name, _ := strings.Cut(os.Getenv("UNDERSTUDY_MEMBER"), " ")
	body := map[string]func(io.Writer, string, <-chan []node) error{"understudy": runOurs, "memberlist": runTheirs, "burner": burn}[kind]
	if body == nil {
		return
	}
	out := &lines{}
	join := make(chan []node, 1)
	// Only the process's end interrupts the body, and it comes right after the end of the input.
	var g errgroup.Group
	g.Go(func() error {
		defer os.Exit(0)
		return obey(out, join)
	})
	g.Go(func() error { return body(out, name, join) })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// lines writes to the standard output, from several goroutines.
type lines struct{ mu sync.Mutex }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return os.Stdout.Write(p)
}

// node is a member and where it listens.
type node struct {
	name string
	at   netip.AddrPort
}

// obey does what the benchmark says until that has ended.
func obey(out io.Writer, join chan<- []node) error {
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		order, rest, _ := strings.Cut(s.Text(), " ")
		switch order {
		case "join":
			var all []node
			for item := range strings.SplitSeq(rest, ",") {
				name, at, _ := strings.Cut(item, "=")
				all = append(all, node{name, netip.MustParseAddrPort(at)})
			}
			join <- all
		case "usage":
			var u syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
				return err
			}
			fmt.Fprintln(out, "usage", u.Utime.Nano()+u.Stime.Nano())
		}
	}
	return nil
}

// burn keeps one processor busy.
func burn(io.Writer, string, <-chan []node) error {
	for n := uint64(1); n != 0; n++ {
	}
	return errors.New("the sky has fallen")
}

// runOurs is a mesh, the production decisions and what they need of a loop.
func runOurs(out io.Writer, self string, join <-chan []node) error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "at", conn.LocalAddr())
	timings := role.Timings{Beat: 100 * time.Millisecond, MissedBeats: 5}
	policy := decide.Policy{Self: self, Timings: decide.DefaultTimings(timings)}
	peers, roles := map[string]netip.AddrPort{}, map[string]string{}
	for i, n := range <-join {
		policy.Nodes = append(policy.Nodes, n.name)
		peers[n.name] = n.at
		roles[n.name] = fmt.Sprint("role", i/8)
	}
	mesh, err := keepalive.New(keepalive.Config{
		Self: self, Key: secrets.NewSecret("the key of a benchmark"), Beat: timings.Beat, MissedBeats: timings.MissedBeats, Roles: roles,
	}, conn)
	if err != nil {
		return err
	}
	mesh.SetPeers(peers)
	g, ctx := errgroup.WithContext(context.Background())
	g.Go(func() error { return mesh.Run(ctx) })
	g.Go(func() error { return judge(out, mesh, policy) })
	return g.Wait()
}

// judge turns what is heard into verdicts, and starts anew after a gap, as the sidecar's loop does.
func judge(out io.Writer, mesh *keepalive.Mesh, policy decide.Policy) error {
	var memory decide.Memory
	started, ready := boottime.Now(), false
	timer := time.NewTimer(0)
	for due := started; ; {
		now := boottime.Now()
		if now.Sub(due) > policy.Timings.Gate {
			mesh.Reset()
			started = now
		}
		d := decide.Next(decide.View{
			Now: now, Started: started, Phase: cluster.Applied, Health: cluster.Healthy, StandbyHealth: cluster.Healthy, Peers: mesh.Peers(),
		}, memory, policy)
		mesh.Say(d.Say)
		alive := 1
		for peer, verdict := range d.Memory.Verdicts {
			is, was := verdict.State == decide.Failed, memory.Verdicts[peer].State == decide.Failed
			switch {
			case is && !was && ready:
				fmt.Fprintln(out, "dead", peer)
			case was && !is && ready:
				fmt.Fprintln(out, "alive", peer)
			}
			if verdict.State == decide.Alive {
				alive++
			}
		}
		if !ready && alive == len(policy.Nodes) {
			ready = true
			fmt.Fprintln(out, "ready")
		}
		memory = d.Memory
		due = min(max(d.LookAgain, now.Add(2*time.Millisecond)), now.Add(100*time.Millisecond))
		timer.Reset(due.Sub(boottime.Now()))
		select {
		case <-timer.C:
		case <-mesh.Changed():
		}
	}
}

// runTheirs is memberlist as it comes.
func runTheirs(out io.Writer, self string, join <-chan []node) error {
	cfg := memberlist.DefaultLANConfig()
	cfg.Name, cfg.BindAddr, cfg.BindPort, cfg.AdvertisePort = self, "127.0.0.1", 0, 0
	cfg.SecretKey = []byte("the key of a bmk")
	cfg.Logger = log.New(io.Discard, "", 0)
	events := make(chan memberlist.NodeEvent, 1024)
	cfg.Events = &memberlist.ChannelEventDelegate{Ch: events}
	list, err := memberlist.Create(cfg)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "at", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), list.LocalNode().Port))
	all := <-join
	if _, err := list.Join([]string{all[0].at.String(), all[1].at.String()}); err != nil {
		return err
	}
	ready, alive := false, 0
	for e := range events {
		switch {
		case e.Event == memberlist.NodeJoin:
			alive++
			if ready {
				fmt.Fprintln(out, "alive", e.Node.Name)
			}
		case e.Event == memberlist.NodeLeave:
			alive--
			if ready {
				fmt.Fprintln(out, "dead", e.Node.Name)
			}
		}
		if !ready && alive == len(all) {
			ready = true
			fmt.Fprintln(out, "ready")
		}
	}
	return nil
}
