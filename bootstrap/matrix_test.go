package main

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite testdata/errors.golden")

// trouble is one way to fail.
type trouble struct {
	name string
	node string // web1, unless it says otherwise
	make func(r *rig)
	args []string
}

func troubles() []trouble {
	return append(troublesBeforePuppet(), troublesWithPuppet()...)
}

func troublesBeforePuppet() []trouble {
	return []trouble{
		{name: "configuration with mistakes", make: func(r *rig) {
			r.config["brunch"], r.config["sources"], r.config["retry"] = "main", "", "{first: 2s, most: 1s}"
		}},
		{name: "unknown flag", args: []string{"-nop"}, make: func(*rig) {}},
		{name: "no hostname", make: func(r *rig) { r.setMeta("hostname", "") }},
		{name: "no hostname and no metadata service", make: func(r *rig) { r.config["metadata"] = "none" }},
		{name: "impossible hostname", make: func(r *rig) { r.setMeta("hostname", "web 1; rm -rf /") }},
		{name: "hostname in no role", node: "web9", make: func(*rig) {}},
		{name: "forced role that is not there", args: []string{"-role", "webb"}, make: func(*rig) {}},
		{name: "ticket of another node", make: func(r *rig) { r.ticket("web2", time.Hour) }},
		{name: "ticket on another machine", make: func(r *rig) { r.setMeta("id", "666") }},
		{name: "ticket too old", make: func(r *rig) { r.ticket("web1", -time.Hour) }},
		{name: "ticket cut short", make: func(r *rig) { r.setMeta("user-data", r.meta["user-data"][:100]) }},
		{name: "no peer there", make: func(r *rig) { r.peer = closedPort(r.t); r.ticket("web1", time.Hour) }},
		{name: "no source there", make: func(r *rig) {
			r.config["sources"] = fmt.Sprintf("[http://%s/a.git, /nonexistent/b.git]", closedPort(r.t))
		}},
		{name: "no source there, and no peer that has a copy", make: func(r *rig) { r.originAway(); r.pin = r.head() }},
		{name: "no source there, and the peers know another identity", make: func(r *rig) {
			r.originAway()
			r.mirror()
			r.config["retry"] = "{first: 100ms, most: 100ms}" // not so often that the peers answer nothing else
			r.run("after join")
			r.makeKeysOf()
		}},
		{name: "unsigned commit at the peers", make: func(r *rig) {
			r.pin = r.commitAs(map[string]string{"x": "y"}, nil)
			r.commit(map[string]string{"x": "z"})
		}},
		{name: "no repository there", make: func(r *rig) { r.config["sources"] = "[" + r.metaURL + "/x.git]" }},
		{name: "no such branch", make: func(r *rig) { r.config["branch"] = "production" }},
		{name: "nobody may sign", make: func(r *rig) { r.setMeta("user-data", "") }},
		{name: "unsigned commit", make: func(r *rig) { r.commitAs(map[string]string{"x": "y"}, nil) }},
		{name: "unknown signer", make: func(r *rig) {
			known := r.signer
			r.makeSigner()
			r.commit(map[string]string{"x": "y"})
			r.signer = known
		}},
		{name: "allowed signers damaged", make: func(r *rig) {
			r.setMeta("user-data", "")
			r.file("etc/understudy/allowed_signers", "ops ssh-ed25519 nonsense\n", 0o644)
		}},
		{name: "commit too old", make: func(r *rig) { r.oldest = strings.Repeat("f", 40) }},
		{name: "tree with a link out of it", make: func(r *rig) { r.commit(map[string]string{"puppet/evil": "-> /etc/shadow"}) }},
		{name: "no roles.yaml", make: func(r *rig) { r.commit(map[string]string{"roles.yaml": ""}) }},
		{name: "roles.yaml with mistakes", make: func(r *rig) {
			r.commit(map[string]string{"roles.yaml": strings.NewReplacer("web[1-2]", "web1", "domain:", "domian:").Replace(testRoles)})
		}},
		{name: "secrets sealed for others", make: func(r *rig) {
			own := r.identity
			r.makeKeysOf()
			r.commit(map[string]string{"secrets.age": r.sealed(r.identity)})
			r.identity = own
		}},
		{name: "secrets and no identity", make: func(r *rig) {
			r.setMeta("user-data", "")
			r.file("etc/understudy/allowed_signers", string(allowedSigners(r.signer.PublicKey())), 0o644)
		}},
		{name: "something odd", make: func(r *rig) {
			r.must(os.Remove(r.path("etc/hosts")))
			r.must(os.Mkdir(r.path("etc/hosts"), 0o755))
		}},
	}
}

func troublesWithPuppet() []trouble {
	return []trouble{
		{name: "no puppet", make: func(r *rig) { r.must(os.Remove(r.path("usr/bin/puppet"))) }},
		{name: "mistake in a manifest", make: func(r *rig) { r.file("puppet-mode", "compile", 0o644) }},
		{name: "environment.conf with variables", make: func(r *rig) { r.commit(map[string]string{"puppet/environment.conf": "manifest = $codedir\n"}) }},
		{name: "resource failed", make: func(r *rig) { r.file("puppet-mode", "failed", 0o644) }},
		{name: "puppet killed", make: func(r *rig) { r.file("puppet-mode", "kill", 0o644) }},
		{name: "puppet without a summary", make: func(r *rig) { r.file("puppet-mode", "none", 0o644) }},
		{name: "puppet hangs", make: func(r *rig) {
			r.file("puppet-mode", "hang", 0o644)
			r.config["patience"] = "{puppet: 300ms, dpkg_lock: 200ms}"
		}},
		{name: "puppet disabled", make: func(r *rig) {
			r.file("var/cache/puppet/state/agent_disabled.lock", `{"disabled_message":"ada is looking at it"}`, 0o644)
		}},
		{name: "puppet running already", make: func(r *rig) { r.holdLock("run/understudy/puppet.lock", "12345\n") }},
		{name: "need never met", make: func(r *rig) {
			url := r.serveNothing()
			need := fmt.Sprintf("    needs: [{role: mail, what: package blog, http: %q, contains: 'Package: blog'}]\n  mail:", url+"/Packages")
			r.commit(map[string]string{"roles.yaml": strings.Replace(testRoles, "  mail:", need, 1)})
		}},
		{name: "disk full in the run", make: func(r *rig) { r.file("puppet-mode", "full", 0o644) }},
		{name: "dpkg locked", make: func(r *rig) { r.file("puppet-mode", "locked", 0o644) }},
	}
}

// TestEveryFailureHasItsCodeAndOneLine holds what the operator reads at three in the morning. Every exit code
// of the promise must be there.
func TestEveryFailureHasItsCodeAndOneLine(t *testing.T) {
	var mu sync.Mutex
	got := map[string]string{}
	codes := map[int]bool{exitDone: true}
	all := troubles()
	t.Run("troubles", func(t *testing.T) {
		for _, tr := range all {
			t.Run(tr.name, func(t *testing.T) {
				t.Parallel()
				node := tr.node
				if node == "" {
					node = "web1"
				}
				r := newRig(t, node)
				r.t = t
				tr.make(r)
				code := r.run("", tr.args...)
				text := r.failureText(code)
				mu.Lock()
				defer mu.Unlock()
				got[tr.name], codes[code] = text, true
			})
		}
	})
	var b strings.Builder
	for _, tr := range all {
		fmt.Fprintf(&b, "%s: %s\n", tr.name, got[tr.name])
	}
	for _, e := range exitMeanings {
		if !codes[e.code] {
			t.Errorf("no trouble here ends with exit code %d (%s)", e.code, e.meaning)
		}
	}
	golden := filepath.Join("testdata", "errors.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

// failureText is what the record says of the failure, or the log where there is no record, made the same
// for every run. It also checks that the two agree.
func (r *rig) failureText(code int) string {
	r.t.Helper()
	text := r.log
	if r.read("var/lib/understudy/bootstrap.json") != "" {
		rec := r.record()
		if rec.Failed == nil || rec.Failed.Code != code || rec.Finished() {
			r.t.Fatalf("exit code %d: the record says %+v\n%s", code, rec.Failed, r.log)
		}
		if r.read("var/lib/understudy/bootstrap.done") != "" {
			r.t.Error("there is a done-marker after a failure")
		}
		if strings.Contains(rec.Failed.Error+rec.Failed.Next, "\n") {
			r.t.Errorf("more than one line: %+v", *rec.Failed)
		}
		lines := strings.Split(strings.TrimSpace(r.log), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, rec.Failed.Error) {
			r.t.Errorf("the last line of the log is %q, want %q in it", last, rec.Failed.Error)
		}
		text = rec.Failed.Error
		if rec.Failed.Next != "" {
			text += "\n    next: " + rec.Failed.Next
		}
	}
	return fmt.Sprintf("exit %d\n    %s", code, strings.ReplaceAll(strings.TrimSpace(r.same(text)), "\n", "\n"))
}

var sameFor = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\d\d:\d\d:\d\d\.\d {12}`), ""},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`\b[0-9a-f]{12,40}\b`), "COMMIT"},
	{regexp.MustCompile(`SHA256:[A-Za-z0-9+/]+`), "SHA256:KEY"},
	{regexp.MustCompile(`tried \d+ times in [0-9.]+m?s`), "tried N times in T"},
}

func (r *rig) same(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, r.root, ""), r.origin, "ORIGIN")
	for _, s := range sameFor {
		text = s.pattern.ReplaceAllString(text, s.by)
	}
	return text
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// makeSigner gives the rig another key to sign commits with.
func (r *rig) makeSigner() {
	identity := r.identity
	r.makeKeys()
	r.identity = identity
}

// makeKeysOf gives the rig another identity to seal for.
func (r *rig) makeKeysOf() {
	signer := r.signer
	r.makeKeys()
	r.signer = signer
}

func (r *rig) serveNothing() string {
	server := httptest.NewServer(http.NotFoundHandler())
	r.t.Cleanup(server.Close)
	return server.URL
}

// holdLock locks a file as another process would, until the test ends.
func (r *rig) holdLock(name, text string) {
	r.file(name, text, 0o600)
	f, err := os.Open(r.path(name))
	r.must(err)
	r.t.Cleanup(func() { f.Close() })
	r.must(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
}

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	return strings.TrimPrefix(server.URL, "http://")
}

func TestFullDiskMeansTheSameWhereverItIsMet(t *testing.T) {
	for _, err := range []error{unix.ENOSPC, unix.EDQUOT} {
		wrapped := fmt.Errorf("write the fact for Puppet: %w", &os.PathError{Op: "write", Path: "/etc/facter/facts.d/.x", Err: err})
		if f := asFailure(fail(exitSecrets, wrapped, "")); f.code != exitDiskFull || f.again {
			t.Errorf("%v: got code %d, again %v; want %d and no other try", err, f.code, f.again, exitDiskFull)
		}
	}
}

func TestExitCodesAreExplained(t *testing.T) {
	var help strings.Builder
	usage(&help)
	var codes []int
	for _, e := range exitMeanings {
		codes = append(codes, e.code)
		if !strings.Contains(help.String(), e.meaning) {
			t.Errorf("-help does not explain %d", e.code)
		}
	}
	if !slices.IsSorted(codes) || len(slices.Compact(codes)) != len(exitMeanings) {
		t.Errorf("got %v, want each code once, in order", codes)
	}
}
