package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"understudy/bootstrap/progress"
	"understudy/bootstrap/secrets"
)

const seedNonce = "00112233445566778899aabbccddeeff"

// seed makes the rig's machine the first of a cluster.
func (r *rig) seed(node string) secrets.Handover {
	r.t.Helper()
	h, err := secrets.NewHandover(r.key, "blog", node, seedNonce)
	if err != nil {
		r.t.Fatal(err)
	}
	r.setMeta("user-data", h.UserData())
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		r.t.Fatal(err)
	}
	r.handover = l.Addr().String()
	l.Close()
	return h
}

// launch hands the identity over as soon as somebody waits for it, until ctx ends.
func (r *rig) launch(ctx context.Context, h secrets.Handover) error {
	m := secrets.Membership{Identity: r.identity, AllowedSigners: allowedSigners(r.signer.PublicKey())}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.handover)
		if err == nil {
			if err = h.Give(ctx, conn, m); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// TestSeedLetsTheSidecarBeginBeforePuppet is what a cluster's first machine does otherwise than all that follow.
func TestSeedLetsTheSidecarBeginBeforePuppet(t *testing.T) {
	r := newRig(t, "web1")
	r.config["patience"] = "{hostname: 300ms, join: 20s, control: 300ms, needs: 300ms, puppet: 5s, puppet_lock: 100ms, dpkg_lock: 1s}"
	h := r.seed("web1")
	given := make(chan error, 1)
	go func() { given <- r.launch(t.Context(), h) }() // received below
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	if err := <-given; err != nil {
		t.Error(err)
	}
	r.mustBeDone("web1", "web")
	if s, _ := r.record().Step(progress.Join); s.Detail != "the first member of cluster blog" {
		t.Errorf("join: got %q", s.Detail)
	}
	notified := r.read("notified")
	before, _, _ := strings.Cut(notified, "STATUS=puppet: ")
	if strings.Count(before, "READY=1") != 1 {
		t.Errorf("before Puppet the service manager heard %q, want that it is ready", before)
	}
	for _, want := range []string{"STATUS=join: waiting for understudy launch to hand over the identity of cluster blog, on TCP port "} {
		if !strings.Contains(notified, want) {
			t.Errorf("the service manager heard %q, want %q", notified, want)
		}
	}
	for name, text := range map[string]string{"log": r.log, "status": notified, "record": r.read("var/lib/understudy/bootstrap.json")} {
		if strings.Contains(text, r.identity.String()) || strings.Contains(text, h.UserData()) {
			t.Errorf("the %s has the identity, or the key to it", name)
		}
	}
	other := newRig(t, "web1")
	if code := other.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, other.log)
	}
	if strings.Count(other.read("notified"), "READY=1") != 1 {
		t.Error("a machine that joins others says that it is ready before it is its node")
	}
}

// TestKilledSeedNeedsNoOperatorAgain is about one that has the identity, and must still let the sidecar begin.
func TestKilledSeedNeedsNoOperatorAgain(t *testing.T) {
	r := newRig(t, "web1")
	r.config["patience"] = "{hostname: 300ms, join: 20s, control: 300ms, needs: 300ms, puppet: 5s, puppet_lock: 100ms, dpkg_lock: 1s}"
	h := r.seed("web1")
	given := make(chan error, 1)
	go func() { given <- r.launch(t.Context(), h) }() // received below
	if code := r.run("after " + progress.Join); code != -1 {
		t.Fatalf("got exit code %d, want a kill\n%s", code, r.log)
	}
	if err := <-given; err != nil {
		t.Error(err)
	}
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	before, _, _ := strings.Cut(r.read("notified"), "STATUS=puppet: ")
	if strings.Count(before, "READY=1") != 1 {
		t.Errorf("before Puppet the service manager heard %q, want that it is ready", before)
	}
}

func TestSeedThatNobodyComesToSaysSo(t *testing.T) {
	r := newRig(t, "web1")
	r.seed("web1")
	if code := r.run(""); code != exitJoinUnreachable {
		t.Errorf("got exit code %d, want %d\n%s", code, exitJoinUnreachable, r.log)
	}
	if f := r.record().Failed; f == nil || !strings.Contains(f.Error, "nobody has handed over") || f.Next != launchAgain {
		t.Errorf("got %+v", f)
	}
	r.seed("mail1") // user data of another node
	if code := r.run(""); code != exitJoinRefused {
		t.Errorf("got exit code %d, want %d\n%s", code, exitJoinRefused, r.log)
	}
	r.setMeta("user-data", "#understudy-seed v1\n{}\n")
	if code := r.run(""); code != exitJoinRefused {
		t.Errorf("broken: got exit code %d, want %d\n%s", code, exitJoinRefused, r.log)
	}
}
