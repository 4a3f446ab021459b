package control

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/sys/unix"
)

const (
	// maxRequest bounds what somebody may say he wants and has, in bytes.
	maxRequest = 1 << 20
	// turnTimeout is how long a request waits for those before it. It must be below the time in which a client wants a header.
	turnTimeout = 2 * dialTimeout
	// paceTimeout is how long a client may take for what is written to it at once. Somebody else waits for the turn.
	paceTimeout = 20 * time.Second
	// largeObject is the size in bytes from which an object is read piece by piece while it is served.
	largeObject = 1 << 20
)

// Handler serves the local copy, read-only, to other machines: the smart form of gitprotocol-http(5), version 0, at the paths
// info/refs and git-upload-pack below whatever the caller strips. Any git can clone and fetch from it. It makes one pack at a time
// and holds one object at a time, checks the hash of each, and breaks the connection off when one is damaged; the copy is then
// thrown away, as Verify does. What it serves is the copy as it was when the request came, whatever a Fetch does meanwhile.
//
// Who may ask is for the caller to say, and so is what bounds a connection before the request has come.
func (r *Repo) Handler() http.Handler {
	s := &server{repo: r, turn: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /info/refs", s.refs)
	mux.HandleFunc("POST /"+transport.UploadPackServiceName, s.uploadPack)
	return mux
}

// server is one Handler.
type server struct {
	repo *Repo
	turn chan struct{} // has room while no pack is being made
}

// refs answers what there is.
func (s *server) refs(w http.ResponseWriter, req *http.Request) {
	if req.URL.Query().Get("service") != transport.UploadPackServiceName {
		http.Error(w, "only "+transport.UploadPackServiceName+" is served here", http.StatusForbidden)
		return
	}
	st, done, err := s.repo.snapshot()
	if err != nil {
		s.notNow(w, err)
		return
	}
	ad, err := st.advertise()
	if err = done(err); err != nil {
		s.notNow(w, err)
		return
	}
	ad.Prefix = [][]byte{[]byte("# service=" + transport.UploadPackServiceName), pktline.Flush}
	head(w, "advertisement")
	_ = ad.Encode(w) // whoever is gone asks again
}

// head begins an answer.
func head(w http.ResponseWriter, kind string) {
	w.Header().Set("Content-Type", "application/x-"+transport.UploadPackServiceName+"-"+kind)
	w.Header().Set("Cache-Control", "no-store")
}

// notNow sends a client to another source; it may come back.
func (s *server) notNow(w http.ResponseWriter, err error) {
	s.repo.opts.Log.Warn("cannot serve the control repo", "err", err)
	http.Error(w, "not now", http.StatusServiceUnavailable)
}

// uploadPack answers one round of a conversation: all of it, when the request says that nothing follows.
func (s *server) uploadPack(w http.ResponseWriter, req *http.Request) {
	asked, err := readRequest(w, req)
	if err != nil {
		http.Error(w, "not a request of git's: "+err.Error(), http.StatusBadRequest)
		return
	}
	control := http.NewResponseController(w)
	// A server's timeouts are for short answers. From here on it is the turn, the context and the pace that bound this one. (A deadline
	// for reading would end the context, too: net/http watches the connection by reading from it.)
	for _, limit := range []func(time.Time) error{control.SetReadDeadline, control.SetWriteDeadline} {
		if err := limit(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return // the connection is gone
		}
	}
	ctx, cancel := context.WithTimeout(req.Context(), DefaultSourceTimeout)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-time.After(turnTimeout):
		s.notNow(w, errors.New("others are being served"))
		return
	case <-ctx.Done():
		return
	}
	st, done, err := s.repo.snapshot()
	if err != nil {
		s.notNow(w, err)
		return
	}
	a, err := st.answer(ctx, asked)
	if _, theirs := errors.AsType[*unknownWantError](err); theirs {
		_ = done(nil)
		head(w, "result")
		_ = pktline.NewEncoder(w).EncodeString("ERR " + err.Error() + "\n") // gitprotocol-pack(5), error-line
		return
	}
	if err != nil {
		s.notNow(w, done(err))
		return
	}
	head(w, "result")
	out := bufio.NewWriterSize(&paced{w, control}, 64<<10)
	err = a.write(ctx, out, st)
	if err = done(err); err != nil {
		s.repo.opts.Log.Warn("a copy of the control repo was not served to its end", "err", err)
		panic(http.ErrAbortHandler) // net/http breaks the connection off, so nobody takes what was sent for a whole pack
	}
}

// paced is a response whose client has paceTimeout for every write.
type paced struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p *paced) Write(b []byte) (int, error) {
	if err := p.control.SetWriteDeadline(time.Now().Add(paceTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// request is what a client wants, has, and has cut off.
type request struct {
	wants, haves, shallows []plumbing.Hash
	depth                  int  // zero: no limit
	more                   bool // it goes on after the wants
	done                   bool // and nothing will follow
	detailed               bool // every commit that both have is to be named
}

// readRequest reads the body of one round.
func readRequest(w http.ResponseWriter, req *http.Request) (request, error) {
	if got := req.Header.Get("Content-Type"); got != "application/x-"+transport.UploadPackServiceName+"-request" {
		return request{}, fmt.Errorf("its type is %q", got)
	}
	body := io.Reader(http.MaxBytesReader(w, req.Body, maxRequest))
	if req.Header.Get("Content-Encoding") == "gzip" { // git does that to long ones
		z, err := gzip.NewReader(body)
		if err != nil {
			return request{}, err
		}
		body = io.LimitReader(z, maxRequest)
	}
	return decodeRequest(body)
}

// decodeRequest reads gitprotocol-pack(5), upload-request and upload-haves. Limits by time or by name are refused.
func decodeRequest(r io.Reader) (out request, err error) {
	defer contain(&err)
	up := packp.NewUploadRequest()
	if err := up.Decode(r); err != nil {
		return request{}, err
	}
	depth, ok := up.Depth.(packp.DepthCommits)
	if !ok || depth < 0 {
		return request{}, errors.New("history is limited by generations only")
	}
	out = request{wants: up.Wants, shallows: up.Shallows, depth: int(depth), detailed: up.Capabilities.Supports(capability.MultiACKDetailed)}
	lines := pktline.NewScanner(r)
	for lines.Scan() {
		out.more = true
		line := strings.TrimSuffix(string(lines.Bytes()), "\n")
		have, isHave := strings.CutPrefix(line, "have ")
		switch {
		case line == "": // the end of a round that another one follows
			return out, nil
		case line == "done":
			out.done = true
			return out, nil
		case isHave && isHash(have):
			out.haves = append(out.haves, plumbing.NewHash(have))
		default:
			return request{}, fmt.Errorf("line %.60q", line)
		}
	}
	return out, lines.Err()
}

// unknownWantError says that something is wanted which is in no branch.
type unknownWantError struct{ want plumbing.Hash }

func (e *unknownWantError) Error() string { return "upload-pack: not our ref " + e.want.String() }

// answer is what one round comes to.
type answer struct {
	limited bool // by depth, so that what is shallow is said first
	change  packp.ShallowUpdate
	said    []string // lines, about what both have
	packs   bool
	objects []plumbing.Hash
}

// answer selects what the client lacks. All that can go wrong with commits and trees goes wrong here, before anything is sent.
func (s *store) answer(ctx context.Context, q request) (a answer, err error) {
	defer contain(&err)
	a = answer{limited: q.depth > 0, packs: q.done}
	if err := s.serves(q.wants); err != nil {
		return a, err
	}
	if a.said, err = s.acknowledge(q); err != nil {
		return a, err
	}
	if !a.limited && !a.packs {
		return a, nil
	}
	cut, err := s.shallow()
	if err != nil {
		return a, err
	}
	walk := newWalker(ctx, s.objects, cut)
	if !a.limited { // who deepens has commits and lacks what is behind them, so that gets all of it
		for _, h := range q.haves {
			if err := walk.exclude(h, q.shallows); err != nil {
				return a, err
			}
		}
	}
	if a.change.Shallows, err = walk.commits(q.wants, q.depth); err != nil {
		return a, err
	}
	for _, h := range q.shallows {
		if walk.seen[h] && !slices.Contains(a.change.Shallows, h) {
			a.change.Unshallows = append(a.change.Unshallows, h)
		}
	}
	a.objects = walk.found
	return a, nil
}

// acknowledge says which of the commits that the client has are here, in one of two ways that there are (gitprotocol-pack(5), packfile
// negotiation): git itself wants them all over HTTP, and go-git's client understands the first only.
func (s *store) acknowledge(q request) (said []string, err error) {
	last := "NAK\n"
	for _, h := range q.haves {
		here, err := s.has(h)
		switch {
		case err != nil:
			return nil, err
		case here && q.detailed:
			said = append(said, "ACK "+h.String()+" common\n")
		}
		if here && (q.detailed && q.done || !q.detailed && last == "NAK\n") {
			last = "ACK " + h.String() + "\n"
		}
	}
	if !q.more {
		return nil, nil
	}
	return append(said, last), nil
}

// write sends an answer.
func (a answer) write(ctx context.Context, w *bufio.Writer, s *store) (err error) {
	defer contain(&err)
	if a.limited {
		if err := a.change.Encode(w); err != nil {
			return err
		}
	}
	if err := pktline.NewEncoder(w).EncodeString(a.said...); err != nil {
		return err
	}
	if a.packs {
		if err := writePack(ctx, w, s.objects, a.objects); err != nil {
			return err
		}
	}
	return w.Flush()
}

// advertise lists the branches, and where their history ends.
func (s *store) advertise() (ad *packp.AdvRefs, err error) {
	defer contain(&err)
	ad = packp.NewAdvRefs()
	for _, c := range []capability.Capability{capability.Shallow, capability.NoProgress, capability.MultiACKDetailed} {
		if err := ad.Capabilities.Set(c); err != nil {
			return nil, err
		}
	}
	if ad.Shallows, err = s.shallow(); err != nil {
		return nil, err
	}
	refs, err := s.objects.IterReferences()
	if err != nil {
		return nil, err
	}
	err = refs.ForEach(func(ref *plumbing.Reference) error {
		if ref.Name().IsBranch() && ref.Type() == plumbing.HashReference {
			return ad.AddReference(ref)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	head, err := s.objects.Reference(plumbing.HEAD)
	if err != nil {
		return nil, err
	}
	if tip, ok := ad.References[head.Target().String()]; ok { // so that git checks it out
		ad.Head = &tip
		err = ad.Capabilities.Add(capability.SymRef, "HEAD:"+head.Target().String())
	}
	if len(ad.References) == 0 {
		return nil, errors.New("no branch is there yet")
	}
	return ad, err
}

// serves returns nil when all that is wanted is in a branch. It need not be the newest commit of one: that may have changed since it
// was advertised.
func (s *store) serves(wants []plumbing.Hash) error {
	ad, err := s.advertise()
	if err != nil {
		return err
	}
	for _, want := range wants {
		found := false
		for _, tip := range ad.References {
			if found = tip == want; found {
				break
			}
			err := descends(s, tip, want.String())
			if found = err == nil; found {
				break
			}
			if !errors.Is(err, ErrTooOld) {
				return err
			}
		}
		// What is behind the end of our history is named there, and is not here.
		if here, err := s.has(want); err != nil {
			return err
		} else if !found || !here {
			return &unknownWantError{want}
		}
	}
	return nil
}

// snapshot opens the repository as it is now. While done has not been called, a Fetch that puts another one in its place leaves it
// where it can be read. done hands the error on, and throws the repository away if that says it is damaged.
func (r *Repo) snapshot() (s *store, done func(error) error, err error) {
	for range 3 {
		dir, err := os.Open(r.Dir)
		if err != nil {
			return nil, nil, err
		}
		err = unix.Flock(int(dir.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err == nil && isAt(dir, r.Dir) {
			s := openServed("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())))
			return s, func(err error) error {
				s.close()
				if errors.Is(err, ErrBroken) && isAt(dir, r.Dir) {
					r.discard()
				}
				dir.Close()
				return err
			}, nil
		}
		dir.Close() // it has just been replaced, and is being removed
	}
	return nil, nil, fmt.Errorf("%s is being replaced", r.Dir)
}

// isAt tells whether an open directory is still the one at path.
func isAt(dir *os.File, path string) bool {
	ours, err := dir.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(ours, there)
}

// removeUnserved deletes what was a repository, unless a snapshot of it is in use: then a later Fetch does.
func removeUnserved(path string) error {
	dir, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	return os.RemoveAll(path)
}
