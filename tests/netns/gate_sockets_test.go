//go:build linux

package netns

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"understudy/sidecar/address"
	"understudy/sidecar/boottime"
)

func TestConnectionsInUseAreCountedAndIdleOnesAreNot(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Prefix) {
		l := newLAN(t)
		node, client := l.host("node", "10.9.0.1/24", "fd00:9::1/64"), l.host("client", "10.9.0.3/24", "fd00:9::3/64")
		gates := node.keeper(lb(vip), address.Spec{Role: "none"})
		must(t, gates.Add("lb"))
		must(t, gates.Gate("lb", boottime.Now().Add(time.Minute), false))
		listener, err := node.Listen(t.Context(), ":80") // of both families, so IPv4 comes to an IPv6 socket
		must(t, err)
		defer listener.Close()
		connect := func(to netip.Addr) (theirs, ours net.Conn) {
			theirs, err := client.Dial(t.Context(), netip.AddrPortFrom(to, 80))
			must(t, err)
			ours, err = listener.Accept()
			must(t, err)
			t.Cleanup(func() { theirs.Close(); ours.Close() })
			return theirs, ours
		}
		counted := func(want int) func() bool {
			return func() bool {
				n, err := gates.Sockets(t.Context(), "lb")
				must(t, err)
				return n == want
			}
		}
		connect(netip.MustParseAddr("10.9.0.1")) // to another address of the machine, which does not count
		if !counted(0)() {
			t.Fatal("without a connection to the address there are some")
		}
		theirs, ours := connect(vip.Addr())
		if !counted(1)() {
			t.Error("a new connection, whose request is on its way, is not counted")
		}
		until(t, "a silent connection counts no more", counted(0))
		write(t, theirs, "request")
		read(t, ours, "request")
		for range 5 { // longer than a connection that is done with would count
			if !counted(1)() {
				t.Fatal("a connection that waits for its answer is not counted")
			}
			<-time.After(100 * time.Millisecond)
		}
		write(t, ours, "answer")
		read(t, theirs, "answer")
		until(t, "a kept-alive connection between two requests counts no more", counted(0))
		write(t, theirs, "request nobody has read yet")
		until(t, "a request that nobody has read counts", counted(1))
		theirs.Close()
		ours.Close()
		until(t, "a closed connection counts no more", counted(0))
		if n, err := gates.Sockets(t.Context(), "none"); n != 0 || err != nil {
			t.Errorf("a role without an address: got %d, %v", n, err)
		}
		if _, err := gates.Sockets(t.Context(), "unheard of"); err == nil {
			t.Error("a role that is none has connections")
		}
	})
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := c.Write([]byte(text))
	must(t, err)
}

func read(t *testing.T, c net.Conn, want string) {
	t.Helper()
	buf := make([]byte, 100)
	must(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	n, err := c.Read(buf)
	if err != nil || string(buf[:n]) != want {
		t.Fatalf("read %q, %v; want %q", buf[:n], err, want)
	}
}
