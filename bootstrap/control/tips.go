package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// Tips asks sources where a branch points to, again and again. Over http and https that costs one request on a connection that
// is kept open, and an answer of one line, however many branches and tags there are (gitprotocol-v2(5), ls-refs); an old server
// answers with all of them. The other protocols connect anew each time. It is for one goroutine. Close it.
type Tips struct {
	repo   *Repo
	branch string
	open   map[Source]*asker
}

// Tips makes one for a branch.
func (r *Repo) Tips(branch string) *Tips {
	return &Tips{r, branch, map[Source]*asker{}}
}

// Close ends the connections.
func (t *Tips) Close() {
	for s := range t.open {
		t.drop(s)
	}
}

func (t *Tips) drop(s Source) {
	if a := t.open[s]; a != nil {
		a.remote.close()
		delete(t.open, s)
	}
}

// Ask returns the hash of the branch's newest commit at one source, and changes nothing here. The error wraps ErrNoNetwork,
// ErrNoBranch, ErrNoRepository or ErrAuth, as in an Attempt.
func (t *Tips) Ask(ctx context.Context, s Source) (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	_, kept := t.open[s]
	tip, err := t.ask(ctx, s)
	if err != nil && kept && ctx.Err() == nil {
		// The server may have ended the connection, moved, or changed its mind on the protocol; and passwords are read anew.
		tip, err = t.ask(ctx, s)
	}
	if err != nil {
		return "", classify(err)
	}
	return tip.String(), nil
}

func (t *Tips) ask(ctx context.Context, s Source) (plumbing.Hash, error) {
	a := t.open[s]
	if a == nil {
		rem, err := s.dial(ctx, t.repo.traffic)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		over, ok := rem.(*httpRemote)
		if !ok {
			defer rem.close()
			return tipOf(ctx, rem, t.branch)
		}
		over.protocol = "version=2"
		a = &asker{remote: over}
		t.open[s] = a
	}
	tip, err := a.ask(ctx, t.branch)
	if err != nil {
		t.drop(s)
	}
	return tip, err
}

// tipOf reads the whole list of branches.
func tipOf(ctx context.Context, rem remote, branch string) (plumbing.Hash, error) {
	ad, err := rem.refs(ctx)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	tip, ok := ad.References[plumbing.NewBranchReferenceName(branch).String()]
	if !ok {
		return plumbing.ZeroHash, fmt.Errorf("%w %q (%d others are there)", ErrNoBranch, branch, len(ad.References))
	}
	return tip, nil
}

// asker is a kept conversation with one server, which forgets us after each request.
type asker struct {
	remote *httpRemote
	lists  bool // the server has said that it knows ls-refs
}

func (a *asker) ask(ctx context.Context, branch string) (plumbing.Hash, error) {
	if a.lists {
		return a.list(ctx, branch)
	}
	body, err := a.remote.advertisement(ctx)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	defer finishBody(body)
	r := bufio.NewReader(body)
	// Servers of version 2 may or may not begin with the name of the service; none has a branch so early.
	start, err := r.Peek(len("001e# service=git-upload-pack\n0000000eversion 2\n"))
	if err != nil && len(start) == 0 {
		return plumbing.ZeroHash, fmt.Errorf("list of branches: %w", err)
	}
	if bytes.Contains(start, []byte("000eversion 2\n")) {
		a.lists = true
		finishBody(body) // before the next request, which then takes the same connection
		return a.list(ctx, branch)
	}
	return tipOf(ctx, advertised{a.remote, r}, branch)
}

// advertised is a remote whose list of branches is under way already.
type advertised struct {
	*httpRemote
	body io.Reader
}

func (r advertised) refs(context.Context) (*packp.AdvRefs, error) { return decodeRefs(r.body) }

// list asks for the one branch.
func (a *asker) list(ctx context.Context, branch string) (plumbing.Hash, error) {
	name := plumbing.NewBranchReferenceName(branch).String()
	var ask bytes.Buffer
	e := pktline.NewEncoder(&ask)
	if err := e.EncodeString("command=ls-refs\n"); err != nil {
		return plumbing.ZeroHash, err
	}
	ask.WriteString("0001") // delim-pkt, which the encoder does not know
	if err := errors.Join(e.EncodeString("ref-prefix "+name+"\n"), e.Flush()); err != nil {
		return plumbing.ZeroHash, err
	}
	u := *a.remote.base
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + transport.UploadPackServiceName
	u.RawPath = ""
	res, err := a.remote.do(ctx, http.MethodPost, &u, &ask, "application/x-git-upload-pack-result")
	if err != nil {
		return plumbing.ZeroHash, err
	}
	defer finishBody(res.Body)
	lines := pktline.NewScanner(io.LimitReader(res.Body, maxAdvertisement))
	for lines.Scan() {
		hash, ref, _ := strings.Cut(strings.TrimSuffix(string(lines.Bytes()), "\n"), " ")
		if complaint, ok := strings.CutPrefix(hash+" "+ref, "ERR "); ok {
			return plumbing.ZeroHash, fmt.Errorf("%w: the server says %q", ErrNoRepository, complaint)
		}
		if ref == name && isHash(hash) {
			return plumbing.NewHash(hash), nil
		}
		if len(lines.Bytes()) == 0 { // flush-pkt: the end
			return plumbing.ZeroHash, fmt.Errorf("%w %q", ErrNoBranch, branch)
		}
	}
	if err := lines.Err(); err != nil {
		return plumbing.ZeroHash, fmt.Errorf("list of branches: %w", err)
	}
	return plumbing.ZeroHash, fmt.Errorf("list of branches: %w", io.ErrUnexpectedEOF)
}

// finishBody reads the little that is left, because net/http keeps only a connection whose answer was read to its end.
func finishBody(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10) // whatever comes of it, the answer has been used
	body.Close()
}
