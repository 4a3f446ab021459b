package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"understudy/bootstrap/control"
	"understudy/sidecar/cluster"
	pushes "understudy/sidecar/follow"
)

// pushed makes a control repo of a few commits and returns where it is and its newest commit.
func pushed(t *testing.T) (dir, newest string) {
	t.Helper()
	dir = t.TempDir()
	repo, err := git.PlainInitWithOptions(dir, &git.PlainInitOptions{InitOptions: git.InitOptions{DefaultBranch: plumbing.NewBranchReferenceName("main")}})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := repo.Worktree()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"1", "2", "3"} {
		who := &object.Signature{Name: "Ops", Email: "ops@test.example", When: time.Unix(1_760_000_000, 0)}
		if err := os.WriteFile(filepath.Join(dir, "roles.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := tree.Add("roles.yaml"); err != nil {
			t.Fatal(err)
		}
		hash, err := tree.Commit(text, &git.CommitOptions{Author: who, Committer: who})
		if err != nil {
			t.Fatal(err)
		}
		newest = hash.String()
	}
	return dir, newest
}

// copyOf is a member's own copy of the control repo.
func copyOf(t *testing.T, m *member) *control.Repo {
	t.Helper()
	r, err := control.Open(filepath.Join(m.cfg.State, "control.git"), filepath.Join(m.cfg.State, "releases"), control.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sources(peers []pushes.Peer) []control.Source {
	var all []control.Source
	for _, p := range peers {
		all = append(all, p.Source)
	}
	return all
}

func TestMembersTakeTheControlRepoFromEachOther(t *testing.T) {
	all := members(t, "mail1", "mail2", "web1", "web2")
	m := all["mail1"]
	var asked []string
	newest := strings.Repeat("a", 40)
	m.said = map[string]cluster.Announcement{"web1": {Rollout: cluster.Rollout{Head: newest}}}
	for _, x := range m.controlPeers() {
		asked = append(asked, fmt.Sprintf("%s %v %.4s", x.Name, x.Source, x.Head))
	}
	if got := strings.Join(asked, ", "); got != "mail2 http://mail2/ , web1 http://web1/ aaaa, web2 http://web2/ " {
		t.Errorf("asks %s, want its own role's node first, and itself never", got)
	}
	if _, err := copyOf(t, m).Fetch(t.Context(), sources(m.controlPeers()), "main"); !errors.Is(err, control.ErrNoNetwork) {
		t.Errorf("nobody has a copy: got %v, want ErrNoNetwork", err)
	}
	origin, want := pushed(t)
	if _, err := copyOf(t, all["web1"]).Fetch(t.Context(), []control.Source{{URL: origin}}, "main"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it was not there, and it is up to date
		if c, err := copyOf(t, m).Fetch(t.Context(), sources(m.controlPeers()), "main"); err != nil || c.Hash != want {
			t.Errorf("got %+v, %v; want %s of web1", c, err, want)
		}
	}
	m.heard = []string{"web2"}
	if got := m.controlPeers(); len(got) != 1 || got[0].Name != "web2" {
		t.Errorf("asks %v, want nobody who is not heard", got)
	}
	m.links = nil
	if got := m.controlPeers(); len(got) != 0 {
		t.Errorf("asks %v without streams", got)
	}
}

func TestANewMachineIsToldTheCommitThatItsRoleHasApplied(t *testing.T) {
	m := members(t, "mail1", "mail2", "web1", "web2")["web1"]
	a, b, c := strings.Repeat("a", 40), strings.Repeat("b", 40), strings.Repeat("c", 40)
	at := func(commit string) cluster.Announcement { return cluster.Announcement{Commit: commit} }
	trying := at(b)
	trying.Rollout.Ask = b
	condemning := at(a)
	condemning.Rollout.Bad = []cluster.BadCommit{{Commit: b}}
	type said = map[string]cluster.Announcement
	for commit, nodes := range map[string]string{a: "mail[1-2]", c: "mail[2-3]"} { // that of b is not on this node
		dir := filepath.Join(m.cfg.State, "releases", commit)
		text := strings.Replace(mailRoster, "mail[1-2]", nodes, 1)
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "roles.yaml"), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		said        said
		node, heard string
		want        string
	}{
		"its role's":                 {said{"mail1": at(a), "web1": at(b), "web2": at(b)}, "mail2", "mail1 web2", a},
		"not the lost machine's own": {said{"mail2": at(c), "web1": at(b)}, "mail2", "mail2", b},
		"not that of who is silent":  {said{"mail1": at(a), "web1": at(b)}, "mail2", "", b},
		"this node's, in its role":   {said{"web1": at(b), "web2": at(a)}, "web2", "web2", b},
		"not one on trial":           {said{"web1": at(a), "mail1": trying}, "mail2", "mail1", a},
		"not a bad one":              {said{"web1": condemning, "mail1": at(b)}, "mail2", "mail1", a},
		"not one that lacks it":      {said{"web1": at(b), "mail2": at(c)}, "mail1", "mail2", b},
		"none is known":              {said{"web1": trying}, "mail2", "mail1", ""},
		"nothing was applied yet":    {said{}, "mail2", "mail1", ""},
		"no node":                    {said{"web1": at(b)}, "", "mail1", b},
	} {
		m.said, m.heard = tc.said, strings.Fields(tc.heard)
		if got := m.goodCommit(tc.node); got != tc.want {
			t.Errorf("%s: got %.4s, want %.4s", name, got, tc.want)
		}
	}
}
