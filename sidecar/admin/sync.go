package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/sidecar/decide"
)

// SyncFor asks for the state of roles' data, and perhaps for something to be done about it.
type SyncFor struct {
	Role string `json:"role,omitempty"` // empty: every role with data
	// Wait asks for a barrier: the answer comes when everything that was written before is on the other node's disk, or after so long.
	// At most MaxSyncWait.
	Wait Duration `json:"wait,omitempty"`
	// Allow lets the next comparison delete so many entries of the mirror, which it refuses to by itself.
	Allow int `json:"allow_deletions,omitempty"`
	// Only: the node that is asked and no other.
	Only bool `json:"only,omitempty"`
}

// MaxSyncWait is the longest wait of one request; who wants to wait longer asks again.
const MaxSyncWait = 20 * time.Second

// Synced is the answer: the roles with data, in the roster's order.
type Synced struct {
	Roles []RoleData `json:"roles"`
}

// RoleData is how a role's data are mirrored, as its primary knows.
type RoleData struct {
	Role    string `json:"role"`
	Primary string `json:"primary"` // who writes; empty: nobody does now
	// Error is why nothing more is known.
	Error string `json:"error,omitempty"`
	// CaughtUp: the mirror has everything that is known. Lag is since when it has not; Never that it never had since the primary's start.
	CaughtUp bool     `json:"caught_up"`
	Never    bool     `json:"never"`
	Lag      Duration `json:"lag"`
	// Durable: everything that was written before the request is on the other node's disk. Only a request that waits can tell.
	Durable     bool        `json:"durable"`
	Directories []Directory `json:"directories"`
}

// Directory is one that is mirrored.
type Directory struct {
	Path   string `json:"path"`
	Mirror string `json:"mirror"` // who follows; empty: nobody
	// Compared: the comparison of this session is over. Changes and Bytes are what is known to be missing.
	Compared bool  `json:"compared"`
	Changes  int   `json:"changes"`
	Bytes    int64 `json:"bytes"`
	// Waiting are paths that could not be read or made there, and are tried again; the first ten.
	Waiting []Waiting `json:"waiting"`
	// Refused is why the source has stopped, and what to do; Allow the deletions that somebody would have to allow, zero: none would help.
	Refused string `json:"refused"`
	Allow   int    `json:"allow_deletions"`
	// Trouble is why the newest stream ended.
	Trouble string `json:"trouble"`
	// Watched directories; Unwatched ones are seen by comparisons only; Overflows of the kernel's queue since the stream began.
	Watched   int    `json:"watched"`
	Unwatched int    `json:"unwatched"`
	Why       string `json:"unwatched_why"`
	Overflows int    `json:"overflows"`
	// Verified is when every byte was read last on this node; not there: never. Rotten are paths whose content had changed though no time did,
	// and that are not mended: the first ten.
	Verified time.Time `json:"verified,omitzero"`
	Rotten   []string  `json:"rotten"`
}

// Waiting is a path and why it waits.
type Waiting struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

func (f SyncFor) validate() error {
	switch {
	case len(f.Role) > maxName:
		return fmt.Errorf("a name has more than %d bytes", maxName)
	case f.Wait < 0 || time.Duration(f.Wait) > MaxSyncWait:
		return fmt.Errorf("wait %v: must be from 0s to %v", f.Wait, MaxSyncWait)
	case f.Allow < 0:
		return errors.New("allow_deletions must not be negative")
	case f.Allow > 0 && f.Role == "":
		return errors.New("deletions are allowed for one role: role is missing")
	}
	return nil
}

// sync answers for the roles of which this node is the primary, and asks the primaries of the others.
func (s *Server) sync(r *http.Request) (Synced, error) {
	var asked SyncFor
	err := decode(r.Body, &asked)
	if err == nil {
		err = asked.validate()
	}
	if err != nil {
		return Synced{}, badRequest(err)
	}
	p, v, d, _, err := s.turn()
	if err != nil {
		return Synced{}, err
	}
	b := builder{p: p, v: v, d: d}
	roles := slices.DeleteFunc(slices.Clone(p.Roles), func(role decide.Role) bool {
		return !role.Data || asked.Role != "" && role.Name != asked.Role || asked.Only && b.role(role).Primary != p.Self
	})
	if len(roles) == 0 && asked.Role != "" && !asked.Only {
		return Synced{}, problem(http.StatusNotFound, "no such role", "no role %q has data", asked.Role)
	}
	if asked.Allow > 0 {
		s.cfg.Log.Warn("an operator allows deletions on the mirror", "role", asked.Role, "count", asked.Allow)
	}
	out := Synced{Roles: make([]RoleData, len(roles))}
	var g errgroup.Group
	g.SetLimit(relaysAtOnce)
	for i, role := range roles {
		g.Go(func() error {
			out.Roles[i] = s.syncRole(r.Context(), b, role.Name, b.role(role).Primary, asked)
			return nil // told in the answer
		})
	}
	_ = g.Wait() // nothing fails
	return out, nil
}

func (s *Server) syncRole(ctx context.Context, b builder, role, primary string, asked SyncFor) RoleData {
	asked.Role = role
	var got RoleData
	var err error
	switch primary {
	case "":
		err = errors.New("no node has the duty now")
	case b.p.Self:
		got, err = s.cfg.Backend.Sync(ctx, asked)
	default:
		got, err = s.syncAt(ctx, b, primary, asked)
	}
	got.Role, got.Primary = role, primary
	if got.Directories = some(got.Directories); err != nil {
		got.Error = err.Error()
	}
	for i := range got.Directories {
		got.Directories[i].Waiting = some(got.Directories[i].Waiting)
		got.Directories[i].Rotten = some(got.Directories[i].Rotten)
	}
	return got
}

// syncAt asks another node for the role that it is the primary of.
func (s *Server) syncAt(ctx context.Context, b builder, node string, asked SyncFor) (RoleData, error) {
	addr := s.addresses(b)[node]
	if addr == "" {
		return RoleData{}, fmt.Errorf("the address of %s is not known here", node)
	}
	tls, err := s.peerTLS(b.p.Self)
	if err != nil {
		return RoleData{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, relayTimeout+time.Duration(asked.Wait))
	defer cancel()
	c := NewTLSClient(addr, tls)
	defer c.Close()
	asked.Only = true
	got, err := c.Sync(ctx, asked)
	switch {
	case err != nil:
		return RoleData{}, err
	case len(got.Roles) != 1:
		return RoleData{}, fmt.Errorf("%s does not have the duty any more", node)
	}
	return got.Roles[0], nil
}
