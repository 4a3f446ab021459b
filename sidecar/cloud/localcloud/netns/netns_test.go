//go:build linux

package netns

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// testSpace makes a namespace for one test. It needs root, as the whole local cloud does.
func testSpace(t *testing.T) *Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	name := fmt.Sprintf("understudy-test-%d", os.Getpid())
	n, err := Create(name, netip.MustParsePrefix("10.77.0.1/16"), netip.MustParsePrefix("203.0.113.1/24"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if err := Remove(name); err != nil {
			t.Error(err)
		}
		if Exists(name) {
			t.Errorf("%s is still there", name)
		}
	})
	return n
}

func TestReservedAddressLeadsToItsHolderAndFollowsIt(t *testing.T) {
	n := testSpace(t)
	ctx := t.Context()
	answers := func(addr, word string) {
		l, err := n.Listen(ctx, addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() { // ends when the listener closes
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, word)
				c.Close()
			}
		}()
	}
	answers("10.77.0.1:8081", "bridge")
	answers("127.0.0.1:8081", "loopback")
	reserved := netip.MustParseAddr("203.0.113.10")
	ask := func() (string, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		c, err := n.Dial(ctx, netip.AddrPortFrom(reserved, 8081))
		if err != nil {
			return "", err
		}
		defer c.Close()
		got, err := io.ReadAll(c)
		return string(got), err
	}
	if got, err := ask(); err == nil {
		t.Fatalf("nobody holds the address and %q answers", got)
	}
	for _, step := range []struct{ target, want string }{{"10.77.0.1", "bridge"}, {"127.0.0.1", "loopback"}} {
		if err := n.Route(reserved, netip.MustParseAddr(step.target)); err != nil {
			t.Fatal(err)
		}
		if got, err := ask(); err != nil || got != step.want {
			t.Errorf("led to %s: got %q, %v; want %q", step.target, got, err, step.want)
		}
	}
	if err := n.Route(reserved, netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	// Whoever began to dial while the address led to nobody is answered by its next holder.
	dialled := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		c, err := n.Dial(ctx, netip.AddrPortFrom(reserved, 8081))
		if err == nil {
			err = c.Close()
		}
		dialled <- err
	}()
	select {
	case err := <-dialled:
		t.Fatalf("nobody has the address, and dialling it ended with %v", err)
	case <-time.After(200 * time.Millisecond): // its first packet is lost
	}
	if err := n.Route(reserved, netip.MustParseAddr("10.77.0.1")); err != nil {
		t.Fatal(err)
	}
	if err := <-dialled; err != nil {
		t.Errorf("an earlier dial did not follow the address: %v", err)
	}
	if err := n.Route(reserved, netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(); err == nil {
		t.Errorf("led to nobody and %q answers", got)
	}
}

func TestSocketsBelongToTheNamespaceAndNotToTheHost(t *testing.T) {
	n := testSpace(t)
	l, err := n.Listen(t.Context(), "10.77.0.1:8082")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := n.Dial(t.Context(), netip.MustParseAddrPort("10.77.0.1:8082"))
	if err != nil {
		t.Fatalf("not reachable from inside: %v", err)
	}
	c.Close()
	links, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(links), Bridge+":") {
		t.Errorf("the bridge is in the host's namespace:\n%s", links)
	}
}

func TestRulesetListsLeadsAndCutsInOrder(t *testing.T) {
	n := &Namespace{nat: map[netip.Addr]netip.Addr{}, drops: map[drop]bool{}}
	for i := range 5 {
		n.nat[netip.AddrFrom4([4]byte{203, 0, 113, byte(10 - i)})] = netip.MustParseAddr("10.16.0.2")
		n.drops[drop{fmt.Sprint("p", 9-i), "q"}] = true
	}
	first := n.ruleset()
	for range 10 {
		if n.ruleset() != first {
			t.Fatal("the same state gives different rules")
		}
	}
	if !strings.Contains(first, `iifname "p5" oifname "q" drop`) || !strings.Contains(first, "{ 203.0.113.6 : 10.16.0.2 }") {
		t.Errorf("a rule is missing:\n%s", first)
	}
}
