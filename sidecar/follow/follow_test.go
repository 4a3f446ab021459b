package follow

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"understudy/bootstrap/control"
)

func TestSignedPushIsAcceptedAndRemembered(t *testing.T) {
	o := newOrigin(t)
	source := o.serve()
	var r *rig
	var atAccepted State
	r = newRig(t, o, func(c *Config) {
		c.Origins = []control.Source{source}
		c.Accepted = func() {
			atAccepted = r.State()
			if got, aside, err := loadState(r.cfg.StateFile); err != nil || aside != "" || got.Commit != atAccepted.Head {
				t.Errorf("on the disk when others are told: got %+v, %v; want %s", got, err, atAccepted.Head)
			}
			if _, err := os.Stat(filepath.Join(atAccepted.Release, "site.pp")); err != nil {
				t.Error(err)
			}
		}
	})
	s := r.must(r.first)
	if s.Subject != "a change" || s.Signer != "ada@blog.example" || s.When.Unix() != 1_700_000_000 || s.Refused+s.Trouble != "" || s.Asked.IsZero() {
		t.Errorf("the first commit: got %+v", s)
	}
	o.commit(map[string]string{"site.pp": "1\n"})
	head := o.commit(map[string]string{"site.pp": "2\n"}, "--message=We need no third one.\n\nUnderstudy-Remove: web3\nSigned-off-by: Ada\nunderstudy-rollout:in-order")
	s = r.must(head)
	want := []Trailer{{"Understudy-Remove", "web3"}, {"understudy-rollout", "in-order"}}
	if s.Subject != "a change" || s.Signer != "ada@blog.example" || !reflect.DeepEqual(s.Trailers, want) || s.Bytes == 0 || s.Looks != 2 {
		t.Errorf("got %+v", s)
	}
	if atAccepted.Head != head || r.served(o) != head {
		t.Errorf("told %s, serves %s; want %s", atAccepted.Head, r.served(o), head)
	}
	atAccepted = State{}
	if again := r.must(head); atAccepted.Head != "" || again.Refused != "" {
		t.Errorf("no news: got %+v, told %+v", again, atAccepted)
	}
	o.run("git", "reset", "--quiet", "--hard", r.first)
	r.start(o, nil) // forgets nothing
	if s := r.must(head); s.Subject != "a change" || !reflect.DeepEqual(s.Trailers, want) || !strings.Contains(s.Why, "was set back") {
		t.Errorf("after a restart: got %+v", s)
	}
}

func TestCommitsThatDoNotCount(t *testing.T) {
	bad := strings.Replace(roles, "web[1-2]", "web[2-1]", 1)
	tests := []struct {
		name string
		push func(o *origin) string // returns the tip
		why  string                 // FIRST and TIP stand for commits
	}{
		{"unsigned", func(o *origin) string { return o.commitBy("nobody", nil) },
			"commit TIP of main is refused: it is not signed; push a signed commit on top of it (git commit -S)"},
		{"unknown key", func(o *origin) string { return o.commitBy("eve", nil) },
			"which is not an allowed signer; push a commit of an allowed signer on top of it, or add the key to the cluster's allowed signers"},
		{"signature of another commit", func(o *origin) string {
			object := o.run("git", "cat-file", "commit", o.commit(nil))
			forged := filepath.Join(o.home, "forged")
			if err := os.WriteFile(forged, []byte(strings.Replace(object, "a change", "no change", 1)+"\n"), 0o644); err != nil {
				o.t.Fatal(err)
			}
			o.run("git", "reset", "--quiet", "--hard", o.run("git", "hash-object", "-t", "commit", "-w", forged))
			return o.head()
		}, "its signature is not valid"},
		{"set back", func(o *origin) string { o.run("git", "reset", "--quiet", "--hard", "HEAD^"); return o.head() },
			"commit TIP of main is refused: main was set back: this cluster has accepted FIRST, which is newer, and nothing is taken back; push a commit on top of that one (git revert)"},
		{"rewritten", func(o *origin) string { return o.commit(map[string]string{"x": "y"}, "--amend") },
			"commit TIP of main is refused: main was rewritten: it does not descend from FIRST, which this cluster has accepted, and nothing is taken back; push a commit on top of that one (git merge)"},
		{"unrelated", func(o *origin) string {
			o.run("git", "checkout", "--quiet", "--orphan", "other")
			tip := o.commit(map[string]string{"x": "y"})
			o.run("git", "branch", "--force", "main", tip)
			return tip
		}, "main was rewritten"},
		{"roles.yaml with problems", func(o *origin) string { return o.commit(map[string]string{"roles.yaml": bad + "x: 1\n"}) },
			"its roles.yaml has problems: roles.yaml:6:16: "},
		{"no roles.yaml", func(o *origin) string { return o.commit(map[string]string{"roles.yaml": "", "x": "y"}) },
			"it has no roles.yaml; push a commit that has one again"},
		{"roles.yaml of another cluster", func(o *origin) string {
			return o.commit(map[string]string{"roles.yaml": strings.Replace(roles, "cluster: blog", "cluster: shop", 1)})
		}, "its roles.yaml is of the cluster shop, and this one is blog; push a commit with the right name"},
		{"roles.yaml a link", func(o *origin) string {
			o.run("git", "mv", "roles.yaml", "r.yaml")
			o.run("ln", "-s", "r.yaml", filepath.Join(o.dir, "roles.yaml"))
			return o.commit(nil)
		}, "roles.yaml cannot be used: it is not a regular file; push a commit without it"},
		{"link out of the tree", func(o *origin) string {
			o.run("ln", "-s", "/etc/shadow", filepath.Join(o.dir, "evil"))
			return o.commit(nil)
		}, "evil cannot be used: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOrigin(t)
			o.commit(map[string]string{"site.pp": "1\n"})
			r := newRig(t, o, nil)
			r.must(r.first)
			tip := tt.push(o)
			s := r.must(r.first)
			why := strings.NewReplacer("TIP", short(tip), "FIRST", short(r.first)).Replace(tt.why)
			if s.Refused != tip || !strings.Contains(s.Why, why) || s.Trouble != "" || r.told != 0 {
				t.Errorf("got %s, %q, %q, told %d times; want %s, %q", s.Refused, s.Why, s.Trouble, r.told, tip, why)
			}
			if got := r.served(o); got != r.first {
				t.Errorf("serves %s, want %s", got, r.first)
			}
			if _, err := os.Stat(filepath.Join(r.dir, "releases", tip)); tt.name != "set back" && err == nil {
				t.Error("what is refused has a release")
			}
			before := r.State().Bytes
			if again := r.once(); again.Refused != tip || again.Why != s.Why || again.Bytes != before {
				t.Errorf("the next look: got %+v, want the same", again)
			}
			o.run("git", "checkout", "--quiet", "-B", "main", r.first)
			if tt.name == "unsigned" {
				o.run("git", "reset", "--quiet", "--hard", tip)
			}
			good := o.commit(map[string]string{"site.pp": "2\n"})
			if s := r.must(good); s.Refused+s.Why+s.Trouble != "" || r.told != 1 {
				t.Errorf("a good commit: got %+v, told %d times", s, r.told)
			}
		})
	}
}

func TestCommitBeyondTheLimitIsRefused(t *testing.T) {
	o := newOrigin(t)
	r := newRig(t, o, nil)
	var err error
	if r.cfg.Repo, err = control.Open(r.cfg.Repo.Dir, r.cfg.Repo.Releases, control.Options{MaxPack: 5000}); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 10_000)
	rand.Read(big)
	o.commit(map[string]string{"big": string(big)})
	if s := r.must(r.first); !strings.Contains(s.Why, "it is too large (") || !strings.Contains(s.Why, "push a commit without them") || s.Trouble != "" {
		t.Errorf("got %q, %q", s.Why, s.Trouble)
	}
}

func TestHeadIsNotForgottenWhileItsCommitIsRefusedElsewhere(t *testing.T) {
	// Some nodes take a, others b, because somebody rewrote the branch in between. A merge brings them together.
	o := newOrigin(t)
	one, two := newRig(t, o, nil), newRig(t, o, nil)
	a := o.commit(map[string]string{"a": "1"})
	one.must(a)
	o.run("git", "reset", "--quiet", "--hard", one.first)
	b := o.commit(map[string]string{"b": "1"})
	two.must(b)
	if s := one.must(a); !strings.Contains(s.Why, "was rewritten") {
		t.Errorf("got %q", s.Why)
	}
	two.cfg.Peers = func() []Peer { return []Peer{{"web1", control.Source{URL: one.cfg.Repo.Dir}, a}} }
	if s := two.must(b); s.Refused != a || !strings.Contains(s.Why, "commit "+short(a)+" of main, which web1 has accepted, is refused: main was rewritten") {
		t.Errorf("got %s, %q", s.Refused, s.Why)
	}
	o.run("git", append(o.by("ada"), "merge", "--quiet", "--message=both", a)...)
	merge := o.head()
	one.must(merge)
	if s := two.must(merge); s.Refused != "" {
		t.Errorf("got %+v", s)
	}
}

func TestPeersBringWhatTheOriginCannot(t *testing.T) {
	o := newOrigin(t)
	origin := httptest.NewServer(o.handler())
	source := control.Source{URL: origin.URL + "/origin/.git"}
	atOrigin := func(c *Config) { c.Origins = []control.Source{source} }
	lag, ahead, r := newRig(t, o, atOrigin), newRig(t, o, atOrigin), newRig(t, o, atOrigin)
	middle := o.commit(map[string]string{"a": "1"})
	r.must(middle)
	o.commit(map[string]string{"a": "2"})
	head := o.commit(map[string]string{"a": "3"})
	ahead.must(head)
	origin.Close()
	r.cfg.Peers = func() []Peer {
		return []Peer{
			{"web1", control.Source{URL: lag.cfg.Repo.Dir}, lag.State().Head},
			{"web2", control.Source{URL: filepath.Join(t.TempDir(), "gone")}, head},
			{"web3", control.Source{URL: ahead.cfg.Repo.Dir}, head},
			{"web4", control.Source{URL: "/"}, "not a commit"},
		}
	}
	s := r.must(head)
	if s.Refused != "" || !strings.Contains(s.Trouble, "no origin of the control repo answers ("+source.URL) || s.Since.IsZero() {
		t.Errorf("got %+v, want trouble with the origin and nothing refused", s)
	}
	if since := r.must(head).Since; since != s.Since {
		t.Errorf("trouble since %v, want still %v", since, s.Since)
	}
	r.cfg.Origins = []control.Source{{URL: o.dir}}
	if s := r.must(head); s.Trouble != "" || !s.Since.IsZero() {
		t.Errorf("the origin is back: got %+v", s)
	}
}

func TestMirrorThatLagsIsNoRefusal(t *testing.T) {
	o := newOrigin(t)
	mirror := filepath.Join(o.home, "mirror")
	o.run("git", "clone", "--quiet", "--mirror", o.dir, mirror)
	r := newRig(t, o, nil)
	head := o.commit(map[string]string{"a": "1"})
	r.must(head)
	r.cfg.Origins = []control.Source{{URL: filepath.Join(o.home, "gone")}, {URL: mirror}}
	if s := r.must(head); s.Refused+s.Why+s.Trouble != "" {
		t.Errorf("got %+v", s)
	}
}

func TestWhatFailedBeforeItWasWrittenDownIsDoneAgain(t *testing.T) {
	o := newOrigin(t)
	r := newRig(t, o, nil)
	r.must(r.first)
	head := o.commit(map[string]string{"a": "1"})
	inTheWay := filepath.Join(r.dir, ".control.json.new")
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := r.once()
	if s.Head != r.first || r.told != 0 || r.served(o) != r.first || !strings.Contains(s.Trouble, "cannot be taken: remember the accepted commit: ") {
		t.Errorf("got %+v, told %d times, serves %s", s, r.told, r.served(o))
	}
	if _, err := os.Stat(filepath.Join(r.dir, "releases", head)); err != nil {
		t.Fatalf("the test wants a release that is not accepted: %v", err)
	}
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	r.start(o, nil) // killed there
	if s := r.must(head); s.Trouble != "" || r.told != 1 {
		t.Errorf("got %+v, told %d times", s, r.told)
	}
	// Killed after it was written down and before anything else.
	next := o.commit(map[string]string{"a": "2"})
	if _, err := r.cfg.Repo.Bring(t.Context(), control.Source{URL: o.dir}, "main", head); err != nil {
		t.Fatal(err)
	}
	if err := (accepted{Commit: next}).save(r.cfg.StateFile); err != nil {
		t.Fatal(err)
	}
	r.start(o, func(c *Config) { c.Origins = nil })
	if r.must(next); r.served(o) != next {
		t.Errorf("serves %s, want %s", r.served(o), next)
	}
}

func TestWhatIsLostOnTheDiskIsBroughtBack(t *testing.T) {
	for name, harm := range map[string]func(r *rig) error{
		"release": func(r *rig) error { return os.RemoveAll(r.State().Release) },
		"both": func(r *rig) error {
			return errors.Join(os.RemoveAll(r.State().Release), os.RemoveAll(r.cfg.Repo.Dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t)
			r := newRig(t, o, nil)
			head := o.commit(map[string]string{"a": "1"})
			r.must(head)
			if err := harm(r); err != nil {
				t.Fatal(err)
			}
			if s := r.must(head); s.Trouble != "" || r.served(o) != head {
				t.Errorf("got %+v, serves %s", s, r.served(o))
			}
			r.must(o.commit(map[string]string{"a": "2"}))
		})
	}
}

func TestDamagedStateFileIsPutAside(t *testing.T) {
	o := newOrigin(t)
	r := newRig(t, o, nil)
	head := o.commit(map[string]string{"a": "1"})
	for _, text := range []string{"", "{", `{"version": 1}`, `{"version": 2, "commit": "` + head + `"}`, `{"version": 1, "commit": "../x"}`} {
		if err := os.WriteFile(r.cfg.StateFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		r.start(o, nil)
		if got := r.State().Head; got != r.first {
			t.Errorf("%q: got %s, want the first commit", text, got)
		}
		if kept, err := os.ReadFile(r.cfg.StateFile + ".damaged"); err != nil || string(kept) != text {
			t.Errorf("aside: got %q, %v; want %q", kept, err, text)
		}
		r.must(head)
	}
}

func TestReleasesInUseAreKept(t *testing.T) {
	o := newOrigin(t)
	r := newRig(t, o, nil)
	good := o.commit(map[string]string{"n": "good"})
	r.must(good)
	r.cfg.Keep = func() []string { return []string{good} }
	for i := range 5 {
		r.must(o.commit(map[string]string{"n": fmt.Sprint(i)}))
	}
	if _, err := os.Stat(filepath.Join(r.dir, "releases", good, "n")); err != nil {
		t.Errorf("the release in use: %v", err)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "releases", r.first)); err == nil {
		t.Error("a release that nobody uses is still there")
	}
}

func TestPausesGrowWhileLooksFail(t *testing.T) {
	f := &Follower{cfg: Config{Every: DefaultEvery}}
	for _, tt := range []struct {
		failed int
		chance float64
		want   time.Duration
	}{
		{0, 0, 3 * time.Second}, {0, 0.5, 4 * time.Second}, {0, 1, 5 * time.Second}, {1, 0.5, 4 * time.Second}, {2, 0.5, 8 * time.Second},
		{3, 0.5, 16 * time.Second}, {4, 0.5, slowest}, {1000, 1, slowest * 5 / 4},
	} {
		if got := f.pause(tt.failed, tt.chance); got != tt.want {
			t.Errorf("after %d failures, chance %v: got %v, want %v", tt.failed, tt.chance, got, tt.want)
		}
	}
}

func TestPokesAreMergedAndNoticedAtOnce(t *testing.T) {
	o := newOrigin(t)
	accepted := make(chan struct{}, 1)
	r := newRig(t, o, func(c *Config) { c.Every, c.Accepted = time.Hour, func() { accepted <- struct{}{} } })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for r.State().Looks == 0 {
		time.Sleep(time.Millisecond)
	}
	head := o.commit(map[string]string{"a": "1"})
	began := time.Now()
	for range 20 {
		all.Go(func() {
			for ctx.Err() == nil {
				r.Poke()
				_ = r.State()
				time.Sleep(time.Millisecond)
			}
		})
	}
	select {
	case <-accepted:
		t.Logf("noticed and accepted after %v", time.Since(began).Round(time.Millisecond))
	case <-time.After(20 * time.Second):
		t.Errorf("not noticed: %+v", r.State())
	}
	time.Sleep(time.Until(began.Add(leastGap * 3 / 2)))
	if s := r.State(); s.Head != head || s.Looks > 3 {
		t.Errorf("got %+v, want %s after two looks or three", s, head)
	}
	cancel()
	all.Wait()
}

func TestTrailersOfAMessage(t *testing.T) {
	for _, tt := range []struct {
		message string
		want    []Trailer
	}{
		{"", nil},
		{"Understudy-Rollout: in-order", nil}, // the subject
		{"s\n\nUnderstudy-Rollout: in-order\n", []Trailer{{"Understudy-Rollout", "in-order"}}},
		{"s\r\n\r\nUnderstudy-A:  b c \r\n", []Trailer{{"Understudy-A", "b c"}}},
		{"s\n\nUnderstudy-A: 1\n\ntext", nil},
		{"s\n\nNot-Understudy-A: 1\nUnderstudy A: 1\nUnderstudy-A 1\nUnderstudy-A: 2\nUnderstudy-A: 3", []Trailer{{"Understudy-A", "2"}, {"Understudy-A", "3"}}},
		{"s\n\nUnderstudy-A: " + strings.Repeat("x", maxTrailer+1), nil},
	} {
		if got := trailers(tt.message); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: got %v, want %v", tt.message, got, tt.want)
		}
	}
	if got := len(trailers("s\n\n" + strings.Repeat("Understudy-A: 1\n", maxTrailers+1))); got != maxTrailers {
		t.Errorf("got %d, want %d", got, maxTrailers)
	}
}

func TestTrailersOfAllThatComesWithACommitAreKnown(t *testing.T) {
	o := newOrigin(t)
	saying := func(what string) string { return o.commit(nil, "--message=Understudy-Remove: "+what) }
	saying("before-all")
	o.run("git", "branch", "beside")
	saying("old")
	var got []string
	r := newRig(t, o, func(c *Config) {
		c.May = func(x Candidate) error {
			all, err := x.Trailers()
			for _, trailer := range all {
				got = append(got, trailer.Value)
			}
			if err != nil || x.Commit != o.head() || len(x.Roster.Roles) != 1 {
				t.Errorf("asked about %+v, %v", x, err)
			}
			return nil
		}
	})
	for _, tt := range []struct {
		name string
		push func()
		want []string
	}{
		{"a line of commits", func() { saying("web3"); saying("web4"); o.commit(nil) }, []string{"web4", "web3"}},
		{"nothing is said twice", func() { o.commit(nil) }, nil},
		{"a branch that was begun before", func() {
			o.run("git", "checkout", "--quiet", "beside")
			saying("web5")
			o.run("git", "checkout", "--quiet", "main")
			o.run("git", append(o.by("ada"), "merge", "--quiet", "--no-ff", "--message=merge\n\nUnderstudy-Remove: web6", "beside")...)
		}, []string{"web6"}},
		{"a branch that was begun since", func() {
			o.run("git", "checkout", "--quiet", "-b", "since")
			saying("web7")
			o.run("git", "checkout", "--quiet", "main")
			o.run("git", append(o.by("ada"), "merge", "--quiet", "--no-ff", "--message=merge", "since")...)
		}, []string{"web7"}},
	} {
		got = nil
		if tt.push(); r.must(o.head()).Head == "" || !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	o := newOrigin(t)
	r := newRig(t, o, nil)
	for name, change := range map[string]func(*Config){
		"no repo": func(c *Config) { c.Repo = nil }, "no branch": func(c *Config) { c.Branch = "" }, "no cluster": func(c *Config) { c.Cluster = "" },
		"no state file": func(c *Config) { c.StateFile = "" }, "nobody signs": func(c *Config) { c.Signers = control.Signers{} },
		"no commit": func(c *Config) { c.First = "main" }, "backwards": func(c *Config) { c.Every = -1 },
	} {
		cfg := r.cfg
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
