package main

import (
	"strings"
	"testing"

	"understudy/bootstrap/secrets"
)

// mustBe fails unless the machine is web1 with that commit.
func (r *rig) mustBe(commit string) {
	r.t.Helper()
	r.mustBeDone("web1", "web")
	if got := r.record().Commit; got != commit {
		r.t.Errorf("got commit %s, want %s\n%s", got, commit, r.log)
	}
}

func TestAPeerServesWhenNoOriginDoes(t *testing.T) {
	for _, killed := range []string{"", "after join", "between control"} {
		r := newRig(t, "web1")
		r.oldest = r.head()
		want := r.commit(map[string]string{"x": "y"})
		r.mirror()
		r.originAway()
		if killed != "" {
			r.run(killed)
		}
		if code := r.run(""); code != exitDone {
			t.Fatalf("killed %q: got exit code %d\n%s", killed, code, r.log)
		}
		r.mustBe(want)
	}
}

// The peers' commit is one of the branch, but the newest is for those to try who can go back.
func TestANewMachineTakesTheCommitOfItsPeers(t *testing.T) {
	r := newRig(t, "web1")
	r.commit(map[string]string{"x": "1"})
	r.pin = r.commit(map[string]string{"x": "2"})
	r.commit(map[string]string{"roles.yaml": "a mistake"})
	r.run("after puppet") // and again after a crash
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.mustBe(r.pin)
	if detail, _ := r.record().Step("control"); !strings.Contains(detail.Detail, "as the peers say") {
		t.Errorf("the step says %q", detail.Detail)
	}
	if got := r.read("var/lib/understudy/pinned_commit"); got != "" {
		t.Errorf("the commit of the first boot is still there: %q", got)
	}
	newest := r.commit(map[string]string{"roles.yaml": testRoles})
	r.file("var/lib/understudy/pinned_commit", r.pin+"\n", 0o644) // as if the machine had died after its marker
	if code := r.run(""); code != exitDone {
		t.Fatalf("once more: got exit code %d\n%s", code, r.log)
	}
	r.mustBe(newest)
}

func TestAnOriginThatIsBehindThePeersIsPassedOver(t *testing.T) {
	r := newRig(t, "web1")
	first := r.head()
	r.pin = r.commit(map[string]string{"x": "1"})
	r.mirror()
	r.reset(first)
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.mustBe(r.pin)
}

func TestAPinThatNobodyHasGivesWayToTheNewest(t *testing.T) {
	for name, have := range map[string]struct{ mirrored, tooOld bool }{"nobody answers but the origin": {false, false}, "no branch has it": {true, false}, "it is too old": {true, true}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "web1")
			r.pin = strings.Repeat("ab", 20)
			if have.tooOld {
				r.pin = r.head()
				r.oldest = r.commit(map[string]string{"x": "1"})
			}
			want := r.commit(map[string]string{"x": "2"})
			if have.mirrored {
				r.mirror()
			}
			if code := r.run(""); code != exitDone || !strings.Contains(r.log, "taking the newest") {
				t.Fatalf("got exit code %d\n%s", code, r.log)
			}
			r.mustBe(want)
			// A peer that does not answer may have it, and is waited for; one that answers has said what it knows.
			if step, _ := r.record().Step("control"); (step.Tries > 1) == have.mirrored {
				t.Errorf("tried %d times, with peers that answer: %v", step.Tries, have.mirrored)
			}
		})
	}
}

// A commit can be wrong for one machine alone. The cure is a push, and it must reach this one.
func TestAPinThatFailedHereIsNotTriedAgain(t *testing.T) {
	r := newRig(t, "web1")
	r.pin = r.commit(map[string]string{"roles.yaml": strings.Replace(testRoles, "web[1-2]", "web[2-3]", 1)})
	if code := r.run(""); code != exitUnknownHost {
		t.Fatalf("got exit code %d, want %d\n%s", code, exitUnknownHost, r.log)
	}
	want := r.commit(map[string]string{"roles.yaml": testRoles})
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.mustBe(want)
}

// What passes by itself is no reason to try what nobody has tried.
func TestAPinOutlastsWhatPasses(t *testing.T) {
	r := newRig(t, "web1")
	r.pin = r.head()
	r.commit(map[string]string{"x": "1"})
	r.file("puppet-mode", "locked", 0o644)
	if code := r.run(""); code != exitDpkgLocked {
		t.Fatalf("got exit code %d, want %d\n%s", code, exitDpkgLocked, r.log)
	}
	r.file("puppet-mode", "", 0o644)
	if code := r.run(""); code != exitDone {
		t.Fatalf("got exit code %d\n%s", code, r.log)
	}
	r.mustBe(r.pin)
}

func TestNothingSecretOfTheJoinIsLogged(t *testing.T) {
	r := newRig(t, "web1")
	r.originAway()
	r.run("")
	if strings.Contains(r.log, "Bearer") || !strings.Contains(r.log, secrets.ControlURL(r.peer)) {
		t.Errorf("the log names no peer, or what it was shown:\n%s", r.log)
	}
}
