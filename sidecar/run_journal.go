package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"understudy/bootstrap/command"
	"understudy/bootstrap/role"
	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
	"understudy/sidecar/mailjournal"
	"understudy/sidecar/peerlink"
	"understudy/sidecar/units"
)

// journals are this node's parts in the mail journals of all roles: it may hold second copies of each, and has the journal
// of its own role while it is primary.
type journals struct {
	parts    *parts
	holdings map[string]*mailjournal.Holding // by role
	service  *mailjournal.Service            // nil: this node's role has no journal
	members  []string                        // all others, the best holder first
}

// newJournals starts nothing. The files lie in journal/<role> below the state directory.
func (p *parts) newJournals(jobs *units.Units) (*journals, error) {
	j := &journals{parts: p, holdings: map[string]*mailjournal.Holding{}}
	for _, r := range p.roster.Roles {
		if r.Journal != nil {
			j.holdings[r.Name] = &mailjournal.Holding{
				Options: mailjournal.Options{Dir: j.dir(r.Name, "holder"), Log: p.log}, Epoch: func() uint64 { return p.knownEpoch(r.Name) },
			}
		}
	}
	own := p.role.Journal
	if own == nil {
		return j, nil
	}
	sealer, err := mailjournal.NewSealer([]byte(p.bundle.ClusterKey.Reveal()))
	if err != nil {
		return nil, err
	}
	for _, node := range append(slices.Clone(p.role.Nodes), p.roster.Nodes()...) { // the role's own come first
		if node != p.cfg.Node && !slices.Contains(j.members, node) {
			j.members = append(j.members, node)
		}
	}
	policy := mailjournal.Defer
	if own.WithoutSecond == role.Accept {
		policy = mailjournal.AcceptLocal
	}
	j.service = mailjournal.NewService(mailjournal.ServiceConfig{
		Dir: j.dir(p.role.Name), Milter: own.Milter.String(), SMTP: own.SMTP.String(), Maildirs: own.Maildirs, Domains: own.Domains,
		WithoutSecond: policy, Holding: j.holdings[p.role.Name], Members: j.members, Holders: j.holders,
		Dial: j.dial, Held: func() uint64 { return p.heldEpoch(p.role.Name) }, Sealer: sealer, Barrier: p.barrier, Runner: command.Exec{}, Log: p.log,
		ClearQueue: func(ctx context.Context) error {
			if err := jobs.Stop(ctx, p.role.Name, p.role.PrimaryUnits); err != nil {
				return err
			}
			return mailjournal.EmptyQueue(ctx, command.Exec{})
		},
	})
	return j, nil
}

// holders are the members that beats are heard of.
func (j *journals) holders() []string {
	return slices.DeleteFunc(slices.Clone(j.members), func(node string) bool { return !j.parts.hears(node) })
}

func (j *journals) dir(of ...string) string {
	return filepath.Join(append([]string{j.parts.cfg.State, "journal"}, of...)...)
}

// heldEpoch is the epoch under which this node has a duty. Zero: it has not.
func (p *parts) heldEpoch(duty string) uint64 {
	_, _, d, _ := p.snapshot()
	if h := d.Memory.Duties[duty].Hold; h.State == cluster.Held || h.State == cluster.Offered {
		return h.Epoch
	}
	return 0
}

// knownEpoch is the highest epoch of a duty that this node has ever heard of.
func (p *parts) knownEpoch(duty string) uint64 {
	_, _, d, _ := p.snapshot()
	return d.Memory.Epochs[duty]
}

// A stream to a holder begins with the role whose mail it is about: its length in one byte, and its name.
const roleTimeout = 5 * time.Second

// dial opens a stream to a member's holder for this node's role.
func (j *journals) dial(ctx context.Context, node string) (net.Conn, error) {
	conn, err := j.parts.dial(ctx, node, peerlink.Journal)
	if err != nil {
		return nil, err
	}
	name := j.parts.role.Name
	err = conn.SetWriteDeadline(time.Now().Add(roleTimeout))
	if err == nil {
		_, err = conn.Write(append([]byte{byte(len(name))}, name...))
	}
	if err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// hold serves a stream of a role's primary. Only nodes of the role can be that.
func (j *journals) hold(ctx context.Context, peer string, conn net.Conn) error {
	name, err := readRole(conn)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(j.parts.roster.Roles, func(r role.Role) bool { return r.Name == name })
	switch {
	case at < 0 || j.holdings[name] == nil:
		return fmt.Errorf("it is about mail of %q, which is no role with a journal here", name)
	case !slices.Contains(j.parts.roster.Roles[at].Nodes, peer):
		return fmt.Errorf("it is about mail of %s, whose node it is not", name)
	}
	if _, _, _, turned := j.parts.snapshot(); turned.IsZero() {
		return errors.New("this node does not know yet which epochs there have been")
	}
	return j.holdings[name].Serve(ctx, conn)
}

func readRole(conn net.Conn) (string, error) {
	if err := conn.SetReadDeadline(time.Now().Add(roleTimeout)); err != nil {
		return "", err
	}
	var length [1]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return "", fmt.Errorf("hear whose mail it is about: %w", err)
	}
	name := make([]byte, length[0])
	if _, err := io.ReadFull(conn, name); err != nil {
		return "", fmt.Errorf("hear whose mail it is about: %w", err)
	}
	return string(name), conn.SetReadDeadline(time.Time{})
}

// state is how the journal of this node's role goes. Nil: none runs here.
func (j *journals) state() *admin.Journal {
	if j.service == nil {
		return nil
	}
	st, runs := j.service.State()
	if !runs {
		return nil
	}
	return &admin.Journal{Open: st.Open, Second: st.Second, Refusing: oneLine(st.Refusing), Behind: append([]string{}, st.Behind...)}
}

// oneLine joins what several members said.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

// close ends the journals after their last stream.
func (j *journals) close() error {
	var errs []error
	if j.service != nil {
		errs = append(errs, j.service.Stop())
	}
	for _, h := range j.holdings {
		errs = append(errs, h.Close())
	}
	return errors.Join(errs...)
}
