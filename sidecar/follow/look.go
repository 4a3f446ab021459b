package follow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"understudy/bootstrap/control"
)

// offer is a commit that somebody says is the newest, and not known here.
type offer struct {
	commit string
	from   control.Source
	peer   string // the member that has accepted it; empty: an origin
	mirror bool   // an origin other than the first, which may lag
}

// look asks once, and takes what is new. It says whether all that should have worked did.
func (f *Follower) look(ctx context.Context) bool {
	f.now.Looks++
	var troubles, waits []string
	tip, err := f.askOrigins(ctx)
	if err != nil {
		troubles = append(troubles, fmt.Sprintf("no origin of the control repo answers (%v): a push is noticed when one does", err))
	}
	peers := f.peers()
	if err := f.restore(ctx, tip, peers); err != nil {
		troubles = append(troubles, err.Error())
	}
	for _, o := range f.offers(tip, peers) {
		if o.commit == f.head.Commit {
			continue // the offer before it was the same
		}
		err := f.consider(ctx, o)
		if _, ok := errors.AsType[NotYet](err); ok {
			waits = append(waits, err.Error())
		} else if err != nil {
			troubles = append(troubles, err.Error())
		}
		if ctx.Err() != nil {
			return false
		}
	}
	f.showRefused(tip, peers)
	f.showTrouble(strings.Join(append(waits, troubles...), "; "))
	return len(troubles) == 0 // who waits looks again at the usual pace
}

// askOrigins returns what the first origin that answers says. The zero offer: there are none.
func (f *Follower) askOrigins(ctx context.Context) (offer, error) {
	var failed []string
	for i, s := range f.cfg.Origins {
		ask, cancel := context.WithTimeout(ctx, askFor)
		tip, err := f.tips.Ask(ask, s)
		cancel()
		if err == nil {
			f.now.Asked = time.Now()
			return offer{commit: tip, from: s, mirror: i > 0}, nil
		}
		failed = append(failed, fmt.Sprintf("%v: %v", s, err))
	}
	if len(failed) == 0 {
		return offer{}, nil
	}
	return offer{}, errors.New(strings.Join(failed, "; "))
}

func (f *Follower) peers() []Peer {
	if f.cfg.Peers == nil {
		return nil
	}
	return f.cfg.Peers()
}

// offers are the commits to look into: the origin's first, because it has the newest.
func (f *Follower) offers(tip offer, peers []Peer) []offer {
	var all []offer
	if tip.commit != "" && f.isNews(tip.commit) {
		all = append(all, tip)
	}
	for _, p := range peers {
		if isHash(p.Head) && f.isNews(p.Head) {
			all = append(all, offer{commit: p.Head, from: p.Source, peer: p.Name})
		}
	}
	return all
}

func (f *Follower) isNews(commit string) bool {
	_, judged := f.judged[commit]
	return !judged && commit != f.head.Commit
}

// consider fetches what is offered, and accepts or refuses it. An error is trouble that another try may be without.
func (f *Follower) consider(ctx context.Context, o offer) error {
	c, err := f.cfg.Repo.Bring(ctx, o.from, f.cfg.Branch, f.head.Commit)
	if err == nil {
		if !f.isNews(c.Hash) {
			return nil // the branch has moved since, to one that is known
		}
		o.commit = c.Hash
		err = f.take(ctx, c, o)
	}
	err = verdict(err)
	if no, ok := errors.AsType[refusal](err); ok {
		f.refuse(o, string(no))
		return nil
	}
	if _, waits := errors.AsType[NotYet](err); waits {
		return fmt.Errorf("commit %.12s of %s%s waits: %w", o.commit, f.cfg.Branch, o.whose(), err)
	}
	if err != nil {
		return fmt.Errorf("commit %.12s of %s%s cannot be taken: %w; it is tried again by itself", o.commit, f.cfg.Branch, o.whose(), err)
	}
	return nil
}

// whose is put behind a commit where it is not the origin's.
func (o offer) whose() string {
	if o.peer == "" {
		return ""
	}
	return ", which " + o.peer + " has accepted,"
}

// take accepts a commit that is here, if nothing is wrong with it.
func (f *Follower) take(ctx context.Context, c control.Commit, o offer) error {
	if err := f.isForward(c, o); err != nil {
		return err
	}
	who, err := f.cfg.Repo.Verify(ctx, c, f.cfg.Signers)
	if err != nil {
		return err
	}
	if err := f.checkRoles(c); err != nil {
		return err
	}
	_, message, err := f.cfg.Repo.Read(c.Hash)
	if err != nil {
		return err
	}
	return f.accept(ctx, c, accepted{Commit: c.Hash, Subject: c.Subject, When: c.When, Signer: who.Name, Trailers: trailers(message)})
}

// accept makes a commit the newest that counts. Until the state file is written it is not; what comes after can be done again.
func (f *Follower) accept(ctx context.Context, c control.Commit, next accepted) error {
	if _, err := f.cfg.Repo.Export(ctx, c, f.keep()...); err != nil {
		return err
	}
	if err := next.save(f.cfg.StateFile); err != nil {
		return fmt.Errorf("remember the accepted commit: %w", err)
	}
	f.cfg.Log.Info("accepted a commit", "commit", next.Commit, "subject", next.Subject, "signer", next.Signer, "before", f.head.Commit)
	f.head, f.pointed = next, false
	clear(f.judged) // on top of another commit the verdict may be another
	if err := f.point(ctx); err != nil {
		f.cfg.Log.Warn("others are served an older commit until the next look", "err", err)
	}
	f.now.Refused, f.now.Why = "", ""
	f.show()
	if f.cfg.Accepted != nil {
		f.cfg.Accepted()
	}
	return nil
}

// keep are the commits whose releases must stay.
func (f *Follower) keep() []string {
	all := []string{f.head.Commit}
	if f.cfg.Keep != nil {
		all = append(all, f.cfg.Keep()...)
	}
	return all
}

func (f *Follower) point(ctx context.Context) error {
	err := f.cfg.Repo.Point(ctx, f.cfg.Branch, control.Commit{Hash: f.head.Commit})
	f.pointed = err == nil
	return err
}

// restore brings back what belongs to the accepted commit and is not there: its release if somebody has removed it, the branch that
// a crash left behind, and the local copy if its disk has damaged it.
func (f *Follower) restore(ctx context.Context, tip offer, peers []Peer) error {
	if info, err := os.Stat(f.release()); f.pointed && err == nil && info.IsDir() {
		return nil
	}
	err := f.lay(ctx)
	if errors.Is(err, control.ErrBroken) {
		err = f.bringBack(ctx, tip, peers, err)
	}
	if err != nil {
		return fmt.Errorf("the accepted commit %.12s is not whole on this disk: %w; it is tried again by itself", f.head.Commit, err)
	}
	return nil
}

// lay writes the accepted commit's release and points the branch to it.
func (f *Follower) lay(ctx context.Context) error {
	if _, err := f.cfg.Repo.Export(ctx, control.Commit{Hash: f.head.Commit}, f.keep()...); err != nil {
		return err
	}
	return f.point(ctx)
}

// bringBack fetches the accepted commit again from whoever has it; why is what is wrong with the local copy.
func (f *Follower) bringBack(ctx context.Context, tip offer, peers []Peer, why error) error {
	var from []control.Source
	if tip.commit != "" {
		from = append(from, tip.from)
	}
	for _, p := range peers {
		from = append(from, p.Source)
	}
	for _, s := range from {
		_, err := f.cfg.Repo.Bring(ctx, s, f.cfg.Branch, f.head.Commit)
		if err == nil {
			err = f.lay(ctx)
		}
		if err == nil {
			f.cfg.Log.Warn("the local copy of the control repo was damaged: fetched it again", "source", s.String(), "err", why)
			return nil
		}
		why = err
	}
	return why
}

// describe finds out about a commit that bootstrap accepted.
func (f *Follower) describe(ctx context.Context) {
	if f.head.Version != 0 {
		return // it is from the state file
	}
	c, message, err := f.cfg.Repo.Read(f.head.Commit)
	if err != nil {
		return // restore tries to mend that; the commit counts all the same
	}
	f.head.Subject, f.head.When, f.head.Trailers = c.Subject, c.When, trailers(message)
	if who, err := f.cfg.Repo.Verify(ctx, c, f.cfg.Signers); err == nil {
		f.head.Signer = who.Name
	}
	f.show()
}

// refuse remembers that a commit does not count. An empty why is that of a source that lags, which is nothing to show.
func (f *Follower) refuse(o offer, why string) {
	const most = 100 // far more than a branch has tips between two commits that are accepted
	if len(f.judged) >= most {
		clear(f.judged)
	}
	if why != "" {
		why = fmt.Sprintf("commit %.12s of %s%s is refused: %s", o.commit, f.cfg.Branch, o.whose(), why)
		f.cfg.Log.Warn("refused a commit", "commit", o.commit, "reason", why)
	}
	f.judged[o.commit] = why
}

// showRefused shows what is refused at the tip, which is the one last heard of while no origin answers; else at another member's.
func (f *Follower) showRefused(tip offer, peers []Peer) {
	if tip.commit != "" {
		f.tip = tip.commit
	}
	heads := []string{f.tip}
	for _, p := range peers {
		heads = append(heads, p.Head)
	}
	f.now.Refused, f.now.Why = "", ""
	for _, commit := range heads {
		if why := f.judged[commit]; why != "" {
			f.now.Refused, f.now.Why = commit, why
			return
		}
	}
}

// showTrouble notes trouble, or that there is none, and logs the change.
func (f *Follower) showTrouble(trouble string) {
	switch {
	case trouble == "" && f.now.Trouble != "":
		f.cfg.Log.Info("a push is noticed again", "took", time.Since(f.now.Since))
		f.now.Since = time.Time{}
	case trouble != "" && f.now.Trouble == "":
		f.cfg.Log.Warn("a push may go unnoticed", "reason", trouble)
		f.now.Since = time.Now()
	}
	f.now.Trouble = trouble
}
