package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
)

// serveCopy serves a repository as a peer would.
func serveCopy(t testing.TB, dir string) string {
	t.Helper()
	r, err := Open(dir, filepath.Join(t.TempDir(), "releases"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r.Handler())
	t.Cleanup(server.Close)
	return server.URL
}

func TestAPeersCopyIsASourceLikeItsOrigin(t *testing.T) {
	o := newOrigin(t)
	oldest := o.commit("a", "1\n")
	o.commit("b", "2\n")
	o.commit("b", "3\n")
	for name, c := range map[string]struct {
		peer, ours string // Options.Oldest
		want       int    // commits
	}{
		"one commit of a shallow copy":      {"", "", 1},
		"one commit of all history":         {oldest, "", 1},
		"all history":                       {oldest, oldest, 3},
		"the one commit that is old enough": {"", o.git("rev-parse", "HEAD"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			peer, ours := newRepo(t, Options{Oldest: c.peer}), newRepo(t, Options{Oldest: c.ours})
			fetch(t, peer, o.dir)
			want := o.git("rev-parse", "HEAD")
			if got := fetch(t, ours, serveCopy(t, peer.Dir)); got.Hash != want {
				t.Errorf("got %s, want %s", got.Hash, want)
			}
			localGit(t, o, ours, "fsck", "--full", "--strict")
			if n := lineCount(localGit(t, o, ours, "rev-list", "main")); n != c.want {
				t.Errorf("history: got %d commits, want %d", n, c.want)
			}
		})
	}
	peer, ours := newRepo(t, Options{}), newRepo(t, Options{Oldest: oldest})
	fetch(t, peer, o.dir)
	_, err := ours.Fetch(t.Context(), []Source{{URL: serveCopy(t, peer.Dir)}}, "main")
	if !errors.Is(err, ErrNoHistory) || errors.Is(err, ErrNoNetwork) {
		t.Errorf("more history than the peer has: got %v, want ErrNoHistory", err)
	}
}

func TestAPeersUpdateBringsWhatIsNewOnly(t *testing.T) {
	o := newOrigin(t)
	noise := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	oldest := o.commit("big", string(noise)) // in no newer tree, so that who has the newest could do without
	for _, branch := range []string{"side", "main"} {
		o.git("checkout", "--quiet", "-B", branch, oldest)
		o.git("rm", "--quiet", "big")
		o.commit(branch, "1\n")
	}
	peer, ours := newRepo(t, Options{Oldest: oldest}), newRepo(t, Options{Oldest: oldest})
	fetch(t, peer, o.dir)
	url := serveCopy(t, peer.Dir)
	fetch(t, ours, url)
	o.git("merge", "--quiet", "--message=merge", "side")
	want := o.git("rev-parse", "HEAD")
	fetch(t, peer, o.dir)
	if got := fetch(t, ours, url); got.Hash != want {
		t.Errorf("got %s, want the merge %s", got.Hash, want)
	}
	packs, err := filepath.Glob(filepath.Join(ours.Dir, "objects/pack/*.pack"))
	if err != nil || len(packs) != 2 {
		t.Fatalf("got packs %q (%v), want one of the clone and one of the update", packs, err)
	}
	small := int64(1 << 20)
	for _, p := range packs {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		small = min(small, info.Size())
	}
	if small > 4<<10 {
		t.Errorf("the update has %d bytes, so it brings what was there", small)
	}
	localGit(t, o, ours, "fsck", "--full", "--strict")
}

// The real git is the reference for what a conversation is.
func TestGitItselfClonesAndFetchesFromAPeer(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("a", "1\n")
	for i := range 30 { // enough for git to ask in more than one round
		o.commit("a", fmt.Sprintf("%d\n", i+2))
	}
	peer := newRepo(t, Options{Oldest: first})
	fetch(t, peer, o.dir)
	url := serveCopy(t, peer.Dir)
	full, shallow := filepath.Join(t.TempDir(), "full"), filepath.Join(t.TempDir(), "shallow")
	o.git("clone", "--quiet", url, full)
	o.git("clone", "--quiet", "--depth=2", url, shallow)
	for dir, want := range map[string]int{full: 31, shallow: 2} {
		if n := lineCount(o.git("-C", dir, "rev-list", "HEAD")); n != want {
			t.Errorf("%s: got %d commits, want %d", filepath.Base(dir), n, want)
		}
	}
	tip := o.commit("a", "last\n")
	fetch(t, peer, o.dir)
	for i := range 40 { // commits that the peer has never heard of come first among what git says it has
		o.git("-C", full, "commit", "--quiet", "--allow-empty", fmt.Sprintf("--message=own %d", i))
	}
	for dir, want := range map[string]int{full: 32, shallow: 3} {
		o.git("-C", dir, "fetch", "--quiet", "origin")
		if got := o.git("-C", dir, "rev-parse", "origin/main"); got != tip {
			t.Errorf("%s: got %s, want %s", filepath.Base(dir), got, tip)
		}
		if n := lineCount(o.git("-C", dir, "rev-list", "origin/main")); n != want {
			t.Errorf("%s: got %d commits, want %d", filepath.Base(dir), n, want)
		}
		o.git("-C", dir, "fsck", "--full")
	}
	o.git("-C", shallow, "fetch", "--quiet", "--unshallow", "origin")
	if n := lineCount(o.git("-C", shallow, "rev-list", "origin/main")); n != 32 {
		t.Errorf("unshallow: got %d commits, want 32", n)
	}
	if out, err := o.run(nil, "git", "-C", full, "push", "--quiet", "origin", "HEAD:main"); err == nil {
		t.Errorf("a push was taken: %s", out)
	}
}

func TestALargeObjectIsServedWhole(t *testing.T) {
	o := newOrigin(t)
	noise := make([]byte, 3*largeObject)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	oldest := o.commit("big", string(noise))
	noise[largeObject] ^= 1
	o.commit("big", string(noise)) // a delta, in the pack that git makes
	peer, ours := newRepo(t, Options{Oldest: oldest}), newRepo(t, Options{Oldest: oldest})
	fetch(t, peer, o.serveHTTP())
	fetch(t, ours, serveCopy(t, peer.Dir))
	localGit(t, o, ours, "fsck", "--full", "--strict")
}

func TestADamagedCopyIsNotServedAsWhole(t *testing.T) {
	o := newOrigin(t)
	oldest := o.commit("a", strings.Repeat("some text\n", 10_000))
	o.commit("b", "2\n")
	for name, at := range map[string]float64{"a commit or tree": 0.02, "in the middle": 0.5, "near the end": 0.9} {
		t.Run(name, func(t *testing.T) {
			peer, ours := newRepo(t, Options{Oldest: oldest}), newRepo(t, Options{Oldest: oldest})
			fetch(t, peer, o.dir)
			packs, err := filepath.Glob(filepath.Join(peer.Dir, "objects/pack/*.pack"))
			if err != nil || len(packs) != 1 {
				t.Fatal(packs, err)
			}
			data, err := os.ReadFile(packs[0])
			if err != nil {
				t.Fatal(err)
			}
			data[12+int(at*float64(len(data)-32))] ^= 0x55
			if err := errors.Join(os.Chmod(packs[0], 0o644), os.WriteFile(packs[0], data, 0o644)); err != nil {
				t.Fatal(err)
			}
			url := serveCopy(t, peer.Dir)
			if _, err := ours.Fetch(t.Context(), []Source{{URL: url}}, "main"); !errors.Is(err, ErrNoNetwork) {
				t.Errorf("got %v, want a source that breaks off", err)
			}
			if _, err := os.Stat(ours.Dir); err == nil {
				t.Error("a copy was made of it")
			}
			fetch(t, peer, o.dir) // what was found damaged was thrown away
			fetch(t, ours, url)
		})
	}
}

func TestAnObjectThatIsNotWhatItsNameSaysIsNotServed(t *testing.T) {
	for kind, find := range map[string]string{"a blob": "HEAD:a", "a tree": "HEAD^{tree}", "a commit": "HEAD"} {
		o := newOrigin(t)
		o.commit("a", "good\n")
		o.commit("a", "evil\n")
		content := func(at string) (path string, data []byte) {
			name := o.git("rev-parse", at)
			path = filepath.Join(o.dir, ".git/objects", name[:2], name[2:])
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return path, data
		}
		at, _ := content(find)
		_, other := content(strings.Replace(find, "HEAD", "HEAD~1", 1)) // whole, and of the same size or nearly so
		if err := errors.Join(os.Chmod(at, 0o644), os.WriteFile(at, other, 0o644)); err != nil {
			t.Fatal(err)
		}
		body, err := posted(t, serveCopy(t, filepath.Join(o.dir, ".git")), "want "+o.git("rev-parse", "main")+"\n", "", "done\n")
		if err == nil && string(body) != "not now\n" {
			t.Errorf("%s: got %q to its end, want nothing, or that it breaks off", kind, body)
		}
	}
}

// posted sends one round to a server. An error says that the answer broke off.
func posted(t *testing.T, url string, all ...string) ([]byte, error) {
	t.Helper()
	res, err := http.Post(url+"/git-upload-pack", "application/x-git-upload-pack-request", strings.NewReader(lines(all...)))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// lines are packet lines, an empty one a flush.
func lines(all ...string) string {
	var b bytes.Buffer
	e := pktline.NewEncoder(&b)
	for _, l := range all {
		if l == "" {
			_ = e.Flush() // into memory
			continue
		}
		_ = e.EncodeString(l)
	}
	return b.String()
}

// What is served is read while it is replaced, and stays readable until it has been served.
func TestServingOutlivesTheExchangeOfTheCopy(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1\n")
	peer := newRepo(t, Options{})
	c := fetch(t, peer, o.dir)
	s, done, err := peer.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	o.git("commit", "--quiet", "--amend", "--message=another history")
	rewritten := o.git("rev-parse", "HEAD")
	peer.discard()
	fetch(t, peer, o.dir) // clones anew
	if err := s.whole(must(s.commit(hashOf(c.Hash))).tree); err != nil {
		t.Errorf("the old copy, while it is served: %v", err)
	}
	if s.tip("main") == hashOf(rewritten) {
		t.Error("the snapshot shows the new copy")
	}
	old, err := filepath.Glob(peer.Dir + tempPrefix + "*")
	if err != nil || len(old) != 1 {
		t.Errorf("beside the new copy: got %q (%v), want the old one", old, err)
	}
	if err := done(fmt.Errorf("%w: on purpose", ErrBroken)); !errors.Is(err, ErrBroken) {
		t.Errorf("got %v, want what was handed in", err)
	}
	if got := fetch(t, peer, o.dir); got.Hash != rewritten {
		t.Errorf("got %s, want %s", got.Hash, rewritten)
	}
	if old, _ := filepath.Glob(peer.Dir + tempPrefix + "*"); len(old) != 0 {
		t.Errorf("left behind: %q", old)
	}
	ours := newRepo(t, Options{})
	if got := fetch(t, ours, serveCopy(t, peer.Dir)); got.Hash != rewritten {
		t.Errorf("served: got %s, want %s", got.Hash, rewritten)
	}
}

func TestFetchesAreServedWhileTheCopyChanges(t *testing.T) {
	o := newOrigin(t)
	oldest := o.commit("a", "1\n")
	peer := newRepo(t, Options{Oldest: oldest})
	fetch(t, peer, o.dir)
	url := serveCopy(t, peer.Dir)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			peer.discard() // every fetch exchanges the directory
			if _, err := peer.Fetch(t.Context(), []Source{{URL: o.dir}}, "main"); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	for range 30 {
		ours := newRepo(t, Options{Oldest: oldest})
		_, err := ours.Fetch(t.Context(), []Source{{URL: url}}, "main")
		if err != nil && !strings.Contains(err.Error(), "503") { // between discard and exchange there is no branch
			t.Error(err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWhatIsServedToWhomAsksOddly(t *testing.T) {
	o := newOrigin(t)
	gone := o.commit("a", "1\n")
	peer := newRepo(t, Options{})
	fetch(t, peer, o.dir)
	o.git("commit", "--quiet", "--amend", "--message=another")
	tip := o.git("rev-parse", "HEAD")
	fetch(t, peer, o.dir) // which has both now
	o.git("checkout", "--quiet", "-b", "other")
	side := o.commit("b", "secret\n")
	url := serveCopy(t, peer.Dir)
	const kind = "application/x-git-upload-pack-request"
	for name, c := range map[string]struct {
		method, path, kind, body string
		status                   int
		want                     string
	}{
		"another service":             {"GET", "/info/refs?service=git-receive-pack", "", "", 403, ""},
		"the dumb protocol":           {"GET", "/info/refs", "", "", 403, ""},
		"a file of the repository":    {"GET", "/HEAD", "", "", 404, ""},
		"a push":                      {"POST", "/git-receive-pack", kind, "", 404, ""},
		"another type":                {"POST", "/git-upload-pack", "text/plain", lines("want "+tip+"\n", "", "done\n"), 400, ""},
		"nothing":                     {"POST", "/git-upload-pack", kind, "", 400, ""},
		"a limit by time":             {"POST", "/git-upload-pack", kind, lines("want "+tip+"\n", "deepen-since 1\n", "", "done\n"), 400, ""},
		"what is not a have":          {"POST", "/git-upload-pack", kind, lines("want "+tip+"\n", "", "gimme\n"), 400, ""},
		"what is in no branch":        {"POST", "/git-upload-pack", kind, lines("want "+side+"\n", "", "done\n"), 200, "not our ref"},
		"what no branch has any more": {"POST", "/git-upload-pack", kind, lines("want "+gone+"\n", "", "done\n"), 200, "not our ref"},
		"all that both have":          {"POST", "/git-upload-pack", kind, lines("want "+tip+" multi_ack_detailed\n", "", "have "+gone+"\n", "have "+tip+"\n", ""), 200, "ACK " + gone + " common\n0038ACK " + tip + " common\n0008NAK\n"},
		"the last that both have":     {"POST", "/git-upload-pack", kind, lines("want "+tip+" multi_ack_detailed\n", "", "have "+tip+"\n", "done\n"), 200, "0038ACK " + tip + " common\n0031ACK " + tip + "\nPACK"},
		"a round that is not over":    {"POST", "/git-upload-pack", kind, lines("want "+tip+"\n", "", "have "+side+"\n", ""), 200, "0008NAK\n"},
		"a have that is known":        {"POST", "/git-upload-pack", kind, lines("want "+tip+"\n", "", "have "+tip+"\n", ""), 200, "0031ACK " + tip + "\n"},
		"more than a request can be":  {"POST", "/git-upload-pack", kind, strings.Repeat(lines("want "+tip+"\n"), 1<<15), 400, "too large"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, url+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", c.kind)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != c.status || !strings.Contains(string(body), c.want) || err != nil {
			t.Errorf("%s: got %s, %q (%v); want %d and %q", name, res.Status, body, err, c.status, c.want)
		}
	}
}

func TestAPeerWithoutACopyIsNotThere(t *testing.T) {
	peer, ours := newRepo(t, Options{}), newRepo(t, Options{})
	if _, err := ours.Fetch(t.Context(), []Source{{URL: serveCopy(t, peer.Dir)}}, "main"); !errors.Is(err, ErrNoNetwork) {
		t.Errorf("got %v, want ErrNoNetwork", err)
	}
}

// FuzzDecodeRequest: whatever arrives, it is refused or understood, and no more of it is kept than came.
func FuzzDecodeRequest(f *testing.F) {
	want := strings.Repeat("ab", 20)
	for _, seed := range []string{
		"", "0000", "0032want " + want + "\n0000", "0032want " + want + "\n00000009done\n",
		"0045want " + want + " shallow no-progress\n0035shallow " + want + "\n000cdeepen 1\n00000032have " + want + "\n0009done\n",
		"000ddeepen -1\n", "ffff", "0032want " + want + "\n00000032have " + want + "\n0000",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := decodeRequest(bytes.NewReader(data))
		if err != nil {
			return
		}
		if n := len(q.wants) + len(q.haves) + len(q.shallows); len(q.wants) == 0 || n*40 > len(data) || q.depth < 0 || q.done && !q.more {
			t.Errorf("got %+v of %d bytes", q, len(data))
		}
	})
}

func hashOf(s string) plumbing.Hash { return plumbing.NewHash(s) }

// must returns a commit that is known to be there.
func must(c parsedCommit, _ []byte, err error) parsedCommit {
	if err != nil {
		panic(err)
	}
	return c
}

func serveFunc(t testing.TB, handle http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return server.URL
}
