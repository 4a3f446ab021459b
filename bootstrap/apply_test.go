package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"understudy/bootstrap/applied"
	"understudy/bootstrap/command"
)

// nodeRig is a rig whose machine is a node already, and a newer commit whose release is on the disk.
func nodeRig(t *testing.T) (r *rig, commit string) {
	t.Helper()
	r = newRig(t, "web1")
	if code := r.run(""); code != exitDone {
		t.Fatalf("exit code %d\n%s", code, r.log)
	}
	return r, r.release(map[string]string{"puppet/manifests/site.pp": "include role::web # newer\n"})
}

// release commits files and puts the commit's release where the sidecar puts it.
func (r *rig) release(files map[string]string) (commit string) {
	r.t.Helper()
	commit = r.commit(files)
	dir := r.path("var/lib/understudy/releases/" + commit)
	r.must(os.CopyFS(dir, os.DirFS(r.origin)))
	r.must(os.RemoveAll(filepath.Join(dir, ".git")))
	return commit
}

func (r *rig) apply(killAt, commit string, args ...string) (code int) {
	r.t.Helper()
	return r.run(killAt, append([]string{"-apply", commit, "-result", r.path("var/lib/understudy/apply.json")}, args...)...)
}

// result is what the last apply has written.
func (r *rig) result() applied.Result {
	r.t.Helper()
	res, err := applied.Parse([]byte(r.read("var/lib/understudy/apply.json")))
	if err != nil {
		r.t.Fatalf("%v\n%s", err, r.log)
	}
	return res
}

func TestApplyPutsTheReleaseInForce(t *testing.T) {
	r, commit := nodeRig(t)
	before, marker := r.record(), r.read("var/lib/understudy/bootstrap.done")
	if code := r.apply("", commit); code != exitDone {
		t.Fatalf("exit code %d\n%s", code, r.log)
	}
	res := r.result()
	if !res.Good() || res.Commit != commit || res.Noop || res.Kind != "changed" || res.Phase != "puppet" || res.Boot != "boot-1" || res.Duration() == 0 {
		t.Errorf("got %+v, want a good run of %s", res, commit)
	}
	if res.Resources != (applied.Resources{Total: 9, Changed: 1, OutOfSync: 1}) {
		t.Errorf("got %+v, want Puppet's numbers, and none corrected: the commit was new", res.Resources)
	}
	after := r.record()
	if after.Commit != commit || !after.Finished() || !after.Done.Equal(*before.Done) || len(after.Steps) != len(before.Steps) {
		t.Errorf("got %+v, want %+v with the new commit", after, before)
	}
	if got := r.read("var/lib/understudy/bootstrap.done"); got != marker {
		t.Errorf("the done-marker of the first boot: got %q, want it as it was: %q", got, marker)
	}
	if saw := r.read("puppet-saw"); saw != "common\nweb\n" {
		t.Errorf("puppet saw the secrets %q", saw)
	}
	if code := r.apply("", commit); code != exitDone || r.result().Resources.Corrective != 1 {
		t.Errorf("the same again: got %d, %+v; want what was changed to count as a correction", code, r.result().Resources)
	}
}

// whole is every file under the root, as far as a run on a real node would see it: path → what is in it.
func (r *rig) whole() map[string]string {
	r.t.Helper()
	ours := []string{"puppet-runs", "puppet-saw", "points", "notified", "etc/understudy/bootstrap.yaml", "var/lib/understudy/apply.json"}
	files := map[string]string{}
	r.must(filepath.WalkDir(r.root, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(r.root, path)
		if err != nil || slices.Contains(ours, name) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files[name] = fmt.Sprint(info.Mode(), info.ModTime())
		if d.Type().IsRegular() {
			files[name] += r.read(name)
		} else if d.IsDir() {
			files[name] = fmt.Sprint(info.Mode()) // the result's directory has a new time
		}
		return nil
	}))
	return files
}

func TestApplyWithNoopChangesNothing(t *testing.T) {
	r, commit := nodeRig(t)
	r.must(os.RemoveAll(r.path("run/understudy"))) // the unit's own, empty one
	before := r.whole()
	if code := r.apply("", commit, "-noop"); code != exitDone {
		t.Fatalf("exit code %d\n%s", code, r.log)
	}
	res := r.result()
	if !res.Good() || !res.Noop || res.Kind != "would change" || res.Resources.OutOfSync != 1 {
		t.Errorf("got %+v, want a good run without effects", res)
	}
	if saw := r.read("puppet-saw"); saw != "common\nweb\n" {
		t.Errorf("puppet saw the secrets %q, want them to be lent", saw)
	}
	after := r.whole()
	delete(after, "run/understudy") // of the lent secrets, which are gone
	if !maps.Equal(before, after) {
		for name, was := range before {
			if after[name] != was {
				t.Errorf("%s: got %q, want %q", name, after[name], was)
			}
		}
		t.Errorf("got %q, want %q", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
	}
}

// applyTroubles are the ways in which an apply on a node fails. What make returns is the commit to apply.
func applyTroubles() []struct {
	name string
	args []string
	make func(r *rig, commit string) string
} {
	mode := func(mode string) func(*rig, string) string {
		return func(r *rig, commit string) string {
			r.file("puppet-mode", mode, 0o644)
			return commit
		}
	}
	return []struct {
		name string
		args []string
		make func(r *rig, commit string) string
	}{
		{name: "release not on the disk", make: func(*rig, string) string { return strings.Repeat("a", 40) }},
		{name: "no node yet", make: func(r *rig, commit string) string {
			r.must(os.Remove(r.path("var/lib/understudy/bootstrap.done")))
			return commit
		}},
		{name: "configuration with mistakes", make: func(r *rig, commit string) string { r.config["brunch"] = "main"; return commit }},
		{name: "renamed machine", make: func(r *rig, commit string) string { r.file("kernel-hostname", "web2", 0o644); return commit }},
		{name: "hostname taken out of roles.yaml", make: func(r *rig, _ string) string {
			return r.release(map[string]string{"roles.yaml": strings.Replace(testRoles, "web[1-2]", "web[2-3]", 1)})
		}},
		{name: "hostname moved to another role", make: func(r *rig, _ string) string {
			return r.release(map[string]string{"roles.yaml": strings.NewReplacer("web[1-2]", "web[2-3]", "mail[1-2]", "[mail1, web1]").Replace(testRoles)})
		}},
		{name: "roles.yaml with mistakes", make: func(r *rig, _ string) string {
			return r.release(map[string]string{"roles.yaml": strings.Replace(testRoles, "domain:", "domian:", 1)})
		}},
		{name: "secrets sealed for others", make: func(r *rig, _ string) string {
			r.makeKeysOf()
			return r.release(map[string]string{"secrets.age": r.sealed(r.identity)})
		}},
		{name: "no puppet", make: func(r *rig, commit string) string { r.must(os.Remove(r.path("usr/bin/puppet"))); return commit }},
		{name: "mistake in a manifest", make: mode("compile")},
		{name: "mistake in a manifest, without effects", args: []string{"-noop"}, make: mode("compile")},
		{name: "resource failed", make: mode("failed")},
		{name: "puppet killed", make: mode("kill")},
		{name: "puppet without a summary", make: mode("none")},
		{name: "puppet hangs", make: func(r *rig, commit string) string {
			r.config["patience"] = "{puppet: 300ms, dpkg_lock: 200ms}"
			return mode("hang")(r, commit)
		}},
		{name: "puppet disabled", make: func(r *rig, commit string) string {
			r.file("var/cache/puppet/state/agent_disabled.lock", `{"disabled_message":"ada is looking at it"}`, 0o644)
			return commit
		}},
		{name: "puppet running already", make: func(r *rig, commit string) string {
			r.holdLock("run/understudy/puppet.lock", "12345\n")
			return commit
		}},
		{name: "disk full in the run", make: mode("full")},
		{name: "dpkg locked", make: mode("locked")},
	}
}

// Each of them leaves the old release in force, ends with the code that a bootstrap would have, and tells whose fault it is.
func TestAFailedApplyLeavesTheOldReleaseInForce(t *testing.T) {
	var mu sync.Mutex
	got := map[string]string{}
	all := applyTroubles()
	t.Run("troubles", func(t *testing.T) {
		for _, tr := range all {
			t.Run(tr.name, func(t *testing.T) {
				t.Parallel()
				r, commit := nodeRig(t)
				before := r.read("var/lib/understudy/bootstrap.json")
				commit = tr.make(r, commit)
				code := r.apply("", commit, tr.args...)
				res := r.result()
				if res.Code != code || res.Good() || res.Commit != commit || strings.Contains(res.Message+res.Next, "\n") {
					t.Errorf("got %+v, exit code %d; want the two to agree", res, code)
				}
				if after := r.read("var/lib/understudy/bootstrap.json"); after != before {
					t.Errorf("the record of the first boot is now\n%s\nwant\n%s", after, before)
				}
				text := fmt.Sprintf("exit %d, %s's fault, %s %s\n    %s\n    next: %s", code, res.Fault, res.Phase, res.Kind, r.same(res.Message), r.same(res.Next))
				for _, f := range res.Failures {
					text += fmt.Sprintf("\n    - %s: %s", f.Resource, f.Message)
				}
				mu.Lock()
				defer mu.Unlock()
				got[tr.name] = text
			})
		}
	})
	var b strings.Builder
	for _, tr := range all {
		fmt.Fprintf(&b, "%s: %s\n", tr.name, got[tr.name])
	}
	golden(t, filepath.Join("testdata", "apply.golden"), b.String())
}

// golden compares with a file, or rewrites it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestApplyKilledAnywhereLeavesOneReleaseInForce(t *testing.T) {
	r, commit := nodeRig(t)
	old := r.record().Commit
	for _, point := range []string{"before roles", "between secrets", "after facts", "before puppet", "after puppet", "before in force"} {
		if code := r.apply(point, commit); code != -1 {
			t.Fatalf("killed %s: exit code %d\n%s", point, code, r.log)
		}
		if rec := r.record(); rec.Commit != old || !rec.Finished() {
			t.Errorf("killed %s: got %+v, want %s to be in force", point, rec, old)
		}
		if got := r.read("var/lib/understudy/apply.json"); got != "" {
			t.Errorf("killed %s: there is a result: %s", point, got)
		}
	}
	if code := r.apply("after in force", commit); code != -1 || r.record().Commit != commit {
		t.Errorf("killed after it: exit code %d, %s in force, want %s", code, r.record().Commit, commit)
	}
	if code := r.apply("", commit); code != exitDone || r.record().Commit != commit || !r.result().Good() {
		t.Errorf("after that: exit code %d, %+v", code, r.result())
	}
}

func TestApplyThatIsStoppedSaysSo(t *testing.T) {
	r, commit := nodeRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := layoutUnder(r.root)
	l.bootID, l.puppet.Proc = r.path("boot_id"), r.path("proc")
	file := r.path("var/lib/understudy/apply.json")
	code := apply(ctx, options{config: r.path("etc/understudy/bootstrap.yaml"), apply: commit, result: file}, surroundings{
		stdout: io.Discard, stderr: io.Discard, log: slog.New(slog.DiscardHandler), layout: l,
		kernel: kernel{hostname: func() (string, error) { return "web1", nil }}, runner: command.Exec{},
		notify: notifier{send: func(string) {}},
		at: func(point string) {
			if point == "before puppet" {
				cancel() // as SIGTERM does
			}
		},
	})
	res := r.result()
	if code != exitUnexpected || res.Code != code || !res.Interrupted || res.Fault != applied.Machine || res.Kind != "" || res.Phase != "puppet" {
		t.Errorf("got %d, %+v; want that it was stopped in the phase puppet", code, res)
	}
}

func TestApplyRefusesWhatItCannotBe(t *testing.T) {
	r := newRig(t, "web1")
	commit := strings.Repeat("a", 40)
	for _, args := range [][]string{
		{"-apply", "main", "-result", "/tmp/x"}, {"-apply", "../" + commit[3:], "-result", "/tmp/x"}, {"-apply", commit},
		{"-apply", commit, "-result", "x"}, {"-apply", commit, "-result", "/tmp/x", "-role", "web"}, {"-result", "/tmp/x"},
	} {
		if code := r.run("", args...); code != exitUsage || !strings.Contains(r.log, "see understudy-bootstrap -help") {
			t.Errorf("%q: got exit code %d and %q, want %d and a hint", args, code, r.log, exitUsage)
		}
	}
}
