package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/bootstrap/progress"
)

func TestFreshMachineBecomesItsNode(t *testing.T) {
	r := newRig(t, "web1")
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.mustBeDone("web1", "web")
	for path, want := range map[string]string{
		"kernel-hostname":                    "web1",
		"etc/hostname":                       "web1\n",
		"etc/hosts":                          "127.0.0.1 localhost\n127.0.1.1 web1.blog.example web1\n",
		"run/understudy/secrets/web/tls.key": "tls-key-of-web",
	} {
		if got := r.read(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	if got := r.read("run/understudy/secrets/mail/dkim.key"); got != "" {
		t.Error("a secret of another role is on the node")
	}
	var fact struct {
		Understudy struct {
			Node, Role string
			Members    map[string][]string
		}
	}
	if err := json.Unmarshal([]byte(r.read("etc/facter/facts.d/understudy.json")), &fact); err != nil {
		t.Fatal(err)
	}
	if f := fact.Understudy; f.Node != "web1" || f.Role != "web" || !slices.Equal(f.Members["mail"], []string{"mail1", "mail2"}) {
		t.Errorf("fact: got %+v", f)
	}
	rec := r.record()
	var names []string
	for _, s := range rec.Steps {
		names = append(names, s.Name)
		if took, err := time.ParseDuration(s.Took); err != nil || took < 0 || s.Detail == "" || s.Tries < 1 {
			t.Errorf("step %+v: got no duration, detail or tries", s)
		}
	}
	want := []string{"hostname", "join", "control", "verify", "export", "roles", "secrets", "facts", "needs", "puppet", "done"}
	if !slices.Equal(names, want) {
		t.Errorf("steps: got %q, want %q", names, want)
	}
	if u := rec.Usage; u == nil || u.Bootstrap.MaxRSS == 0 || u.Puppet == nil {
		t.Errorf("usage: got %+v", u)
	}
	if !strings.HasSuffix(r.read("notified"), "READY=1\nSTATUS=done: web1 is a web node at "+rec.Commit[:12]+", after "+after(t, r.read("notified"))+"\n") {
		t.Errorf("the service manager heard %q", r.read("notified"))
	}
	if strings.Contains(r.log, "tls-key-of-web") || strings.Contains(r.log, r.identity.String()) {
		t.Error("a secret is in the log")
	}
}

func after(t *testing.T, notified string) string {
	t.Helper()
	_, d, ok := strings.Cut(notified, ", after ")
	if !ok {
		t.Fatalf("the service manager heard no end: %q", notified)
	}
	return strings.TrimSpace(d)
}

// TestKillAtEveryStepIsRecovered is the promise that any of them may be cut off, before, in the middle (the
// work is done and not recorded) and after.
func TestKillAtEveryStepIsRecovered(t *testing.T) {
	for _, name := range []string{progress.Hostname, progress.Join, progress.Control, progress.Verify, progress.Export, progress.Roles, progress.Secrets, progress.Facts, progress.Needs, progress.Puppet, progress.Done} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "web1")
			for _, when := range []string{"before", "between", "after"} {
				if code := r.run(when + " " + name); code != -1 {
					t.Fatalf("killed %s: got exit code %d, want a kill\n%s", when, code, r.log)
				}
			}
			reboot(r)
			if code := r.run(""); code != exitDone {
				t.Fatalf("got exit code %d\n%s", code, r.log)
			}
			r.mustBeDone("web1", "web")
			if got := r.record().Attempt; got != 4 {
				t.Errorf("attempt: got %d, want 4", got)
			}
			if got := r.read("run/understudy/secrets/web/tls.key"); got != "tls-key-of-web" {
				t.Errorf("secrets after the reboot: got %q", got)
			}
		})
	}
}

// reboot empties what does not survive one.
func reboot(r *rig) {
	r.t.Helper()
	r.file("boot_id", "boot-2\n", 0o644)
	if err := os.RemoveAll(r.path("run")); err != nil {
		r.t.Fatal(err)
	}
}

func TestWhatIsDoneIsNotDoneAgain(t *testing.T) {
	r := newRig(t, "web1")
	if code := r.run("before done"); code != -1 {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.config["sources"] = `["http://127.0.0.1:1/nobody"]` // a network that has gone again is not needed any more
	r.setMeta("user-data", "")
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.mustBeDone("web1", "web")
	if got := r.runs(); got != 1 {
		t.Errorf("got %d Puppet runs, want 1", got)
	}
}

func TestFailureIsLookedAtAfreshWithTheNewestCommit(t *testing.T) {
	r := newRig(t, "web1")
	r.file("puppet-mode", "compile", 0o644)
	if code := r.run(""); code != exitCompile {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.file("puppet-mode", "", 0o644)
	fixed := r.commit(map[string]string{"puppet/manifests/site.pp": "include role::mail\n"})
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.mustBeDone("web1", "web")
	if got := r.record().Commit; got != fixed {
		t.Errorf("commit: got %s, want the newest, %s", got, fixed)
	}
}

func TestStartByHandOnADoneNodeTakesTheNewestCommit(t *testing.T) {
	r := newRig(t, "web1")
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	newer := r.commit(map[string]string{"puppet/data/common.yaml": "a: 1\n"})
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.mustBeDone("web1", "web")
	if got := r.record().Commit; got != newer || r.runs() != 2 {
		t.Errorf("got commit %s after %d runs, want %s after 2", got, r.runs(), newer)
	}
}

func TestUnreadableRecordIsPutAside(t *testing.T) {
	for name, text := range map[string]string{"truncated": `{"version":1,"steps":[{"na`, "empty": "", "other version": `{"version":99}`, "zeros": strings.Repeat("\x00", 300)} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "web1")
			r.file("var/lib/understudy/bootstrap.json", text, 0o644)
			if code := r.run(""); code != exitDone {
				t.Fatalf("got exit code %d\n%s", code, r.log)
			}
			r.mustBeDone("web1", "web")
			if got := r.read("var/lib/understudy/bootstrap.json.unreadable"); got != text {
				t.Errorf("put aside: got %q, want %q", got, text)
			}
		})
	}
}

func TestRecordOfAnotherIncarnationIsDropped(t *testing.T) {
	for name, change := range map[string]func(*rig){
		"machine-id": func(r *rig) {
			if err := os.Remove(r.path("etc/machine-id")); err != nil {
				r.t.Fatal(err)
			}
			r.file("etc/machine-id", strings.Repeat("f", 32)+"\n", 0o444)
		},
		"droplet": func(r *rig) { r.setMeta("id", "4712") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "web1")
			if code := r.run("after puppet"); code != -1 {
				t.Fatalf("got exit code %d\n%s", code, r.log)
			}
			change(r)
			if code := r.run(""); code != exitDone {
				t.Fatalf("got exit code %d\n%s", code, r.log)
			}
			r.mustBeDone("web1", "web")
			if got := r.runs(); got != 2 {
				t.Errorf("got %d Puppet runs, want one for each incarnation", got)
			}
		})
	}
}

func TestLateHostnameIsWaitedFor(t *testing.T) {
	r := newRig(t, "web1")
	r.setMeta("hostname", "")
	r.config["patience"] = "{hostname: 30s}"
	timer := time.AfterFunc(200*time.Millisecond, func() { r.setMeta("hostname", "web1") })
	defer timer.Stop()
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.mustBeDone("web1", "web")
	if s, _ := r.record().Step(progress.Hostname); s.Tries < 2 {
		t.Errorf("got %d tries, want several", s.Tries)
	}
	if n := strings.Count(r.log, "trying again"); n != 1 {
		t.Errorf("the log says %d times that it tries again, want once for one reason\n%s", n, r.log)
	}
}

func TestDamagedLocalCopyIsFetchedAgain(t *testing.T) {
	r := newRig(t, "web1")
	if code := r.run("after control"); code != -1 {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	packs, err := filepath.Glob(r.path("var/lib/understudy/control.git/objects/pack/*"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("got %v, %v; want packs to damage", packs, err)
	}
	for _, p := range packs {
		// Packs are read-only, which stops everybody but root.
		if err := errors.Join(os.Chmod(p, 0o644), os.Truncate(p, 20)); err != nil {
			t.Fatal(err)
		}
	}
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.mustBeDone("web1", "web")
}

func TestRoleCanBeForced(t *testing.T) {
	r := newRig(t, "spare")
	if code := r.run("", "-role", "mail"); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.mustBeDone("spare", "mail")
	if !strings.Contains(r.read("etc/facter/facts.d/understudy.json"), `"first_node": false`) {
		t.Errorf("fact: got %s", r.read("etc/facter/facts.d/understudy.json"))
	}
}

func TestNoopTouchesNothing(t *testing.T) {
	r := newRig(t, "web1")
	before := listing(t, r.root)
	if code := r.run("", "-noop"); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	for _, own := range []string{"points", "notified", "puppet-runs", "puppet-saw", "etc/understudy", "etc/understudy/bootstrap.yaml"} {
		if err := os.RemoveAll(r.path(own)); err != nil {
			t.Fatal(err)
		}
	}
	if got := listing(t, r.root); got != before {
		t.Errorf("got\n%s\nwant\n%s", got, before)
	}
	for _, want := range []string{"web1, from the metadata service (would be set)", "would ask " + r.peer, "would change", "nothing was changed"} {
		if !strings.Contains(r.log, want) {
			t.Errorf("the log does not say %q:\n%s", want, r.log)
		}
	}
}

func TestNoopLendsPuppetTheSecretsAndTakesThemAway(t *testing.T) {
	r := newRig(t, "web1")
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	reboot(r)
	before := r.read("var/lib/understudy/bootstrap.json")
	r.commit(map[string]string{"puppet/manifests/site.pp": "include role::other\n"})
	if code := r.run("", "-noop"); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	if got := r.read("puppet-saw"); got != "common\nweb\n" {
		t.Errorf("Puppet saw secrets of %q, want common and web", got)
	}
	if exists(r.path("run/understudy/secrets")) {
		t.Error("the secrets are still there")
	}
	if r.read("var/lib/understudy/bootstrap.json") != before {
		t.Error("the record has changed")
	}
}

// listing is every path under root with its size and mode.
func listing(t *testing.T, root string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			fmt.Fprintf(&all, "%s %v %d\n", strings.TrimPrefix(path, root), info.Mode(), info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
