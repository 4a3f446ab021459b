package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"understudy/bootstrap/role"
)

func TestChecksThatCanBeAskedFromOutside(t *testing.T) {
	h := role.Health{
		Units: []string{"nginx.service"}, Command: []string{"/bin/true"},
		HTTP: []string{"http://127.0.0.1:8404/healthz", "https://localhost/x", "http://www.blog.example/", "http://[::1]/"},
		TCP:  []string{"127.0.0.1:25", "10.0.0.1:80", "[::1]:993"},
	}
	for addr, want := range map[string]role.Health{
		"10.77.0.4": {HTTP: []string{"http://10.77.0.4:8404/healthz", "https://10.77.0.4/x", "http://10.77.0.4/"}, TCP: []string{"10.77.0.4:25", "10.77.0.4:993"}},
		"fd00::4":   {HTTP: []string{"http://[fd00::4]:8404/healthz", "https://[fd00::4]/x", "http://[fd00::4]/"}, TCP: []string{"[fd00::4]:25", "[fd00::4]:993"}},
	} {
		if got := fromOutside(h, netip.MustParseAddr(addr)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", addr, got, want)
		}
	}
	if got := fromOutside(h, netip.Addr{}); !got.IsZero() {
		t.Errorf("no address: got %+v", got)
	}
}

// becomes waits until the node that is not reached is the wanted one.
func becomes(t *testing.T, o *outside, want string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); o.unreached() != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q is unreached, want %q", o.unreached(), want)
		}
	}
}

func TestAServiceThatOthersHaveLostIsNoticedAndOneTheyNeverHadIsNot(t *testing.T) {
	listen := func(addr string) net.Listener {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := listen("127.0.0.2:0")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	never := listen("127.0.0.1:0")
	_, own, _ := net.SplitHostPort(never.Addr().String())
	if err := never.Close(); err != nil {
		t.Fatal(err)
	}
	o := newOutside(role.Role{Name: "web", Health: role.Health{TCP: []string{"127.0.0.1:" + port, "127.0.0.1:" + own}}}, slog.New(slog.DiscardHandler))
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.run(ctx) }()
	web1 := target{node: "web1", addr: netip.MustParseAddr("127.0.0.2")}
	o.watch(web1)
	reached := func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.reached) == 1
	}
	for end := time.Now().Add(20 * time.Second); !reached(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not reached")
		}
	}
	time.Sleep(2 * outsideEvery)
	if got := o.unreached(); got != "" {
		t.Errorf("%s is unreached for a port that nobody has ever reached", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	becomes(t, o, "web1")
	l = listen("127.0.0.2:" + port)
	becomes(t, o, "")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	becomes(t, o, "web1")
	o.watch(target{node: "web2", addr: web1.addr})
	if got := o.unreached(); got != "" {
		t.Errorf("what was seen of web1 is held against %s", got)
	}
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
