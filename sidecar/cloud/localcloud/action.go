package localcloud

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// DigitalOcean's words for the state of an action and for what it is about.
const (
	inProgress = "in-progress"
	completed  = "completed"
	errored    = "errored"

	resourceDroplet = "droplet"
	resourceImage   = "image"
)

// errActionFault is why an action errored when the fault ActionErrored said so.
var errActionFault = errors.New("a fault was injected")

// action is the record of something asynchronous. Server.mu guards it.
type action struct {
	ID           int         `json:"id"`
	Status       string      `json:"status"`
	Type         string      `json:"type"`
	StartedAt    string      `json:"started_at"`
	CompletedAt  *string     `json:"completed_at"`
	ResourceID   int         `json:"resource_id"`
	ResourceType string      `json:"resource_type"`
	Region       *regionJSON `json:"region"`
	RegionSlug   string      `json:"region_slug"`

	// hidden actions are not found any more.
	hidden bool
}

// linkJSON is DigitalOcean's action_link.
type linkJSON struct {
	ID   int    `json:"id"`
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

func (a *action) link(c *call, rel string) linkJSON {
	return linkJSON{a.ID, rel, c.href("/v2/actions/" + strconv.Itoa(a.ID))}
}

// newAction makes the record of an action that starts now. The caller holds s.mu.
func (s *Server) newAction(c *call, kind, resourceType string, resourceID int, r Region) *action {
	rj := s.regionJSON(r)
	a := &action{
		ID: s.newID(), Status: inProgress, Type: kind, StartedAt: timestamp(c.now),
		ResourceID: resourceID, ResourceType: resourceType, Region: &rj, RegionSlug: r.Slug,
	}
	s.actions = append(s.actions, a)
	if len(s.actions) > keepActions && s.actions[0].Status != inProgress {
		s.actions = slices.Delete(s.actions, 0, 1)
	}
	return a
}

// conclude ends a. The caller holds s.mu and changes the other records under the same lock.
func conclude(a *action, status string, now time.Time) {
	at := timestamp(now)
	a.Status, a.CompletedAt = status, &at
}

// finish ends a as completed after apply has changed the records, both under the lock.
func (s *Server) finish(a *action, apply func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	apply()
	conclude(a, completed, time.Now())
}

// fail ends a as errored after apply has changed the records, both under the lock.
func (s *Server) fail(a *action, apply func(now time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	apply(now)
	conclude(a, errored, now)
}

// runOn starts the work of action a on droplet d, which is locked until it ends. The work gets the machine as it is
// when the work begins; apply changes the records when it has succeeded. The caller holds s.mu.
func (s *Server) runOn(d *droplet, a *action, fx effects, work func(context.Context, Machine) error, apply func(now time.Time)) {
	d.pending = a.ID
	id := d.machine.ID
	s.start(func(ctx context.Context) {
		if !pause(ctx, s.opt.ActionDelay+fx.slowAction) {
			return
		}
		s.mu.Lock()
		m := d.machine.clone()
		s.mu.Unlock()
		before := s.status(id, true)
		err := errActionFault
		if !fx.errored {
			err = work(ctx, m)
		}
		if ctx.Err() != nil {
			return // The server closes; what is half done stays as it is.
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		now := time.Now()
		d.pending, d.before, d.changed = 0, before, now
		if err != nil {
			s.log.Error("action on a droplet failed", "machine", id, "action", a.Type, "err", err)
			conclude(a, errored, now)
			return
		}
		apply(now)
		conclude(a, completed, now)
		s.log.Info("action on a droplet completed", "machine", id, "action", a.Type)
	})
}

// lookUpAction finds an action by ID. The caller holds s.mu.
func (s *Server) lookUpAction(id int) (*action, bool) {
	i, ok := slices.BinarySearchFunc(s.actions, id, func(a *action, id int) int { return a.ID - id })
	if !ok || s.actions[i].hidden {
		return nil, false
	}
	return s.actions[i], true
}

// actionsOf returns copies of the actions on one resource, newest first. The caller holds s.mu.
func (s *Server) actionsOf(resourceType string, resourceID int) []action {
	return s.selectActions(func(a *action) bool { return a.ResourceType == resourceType && a.ResourceID == resourceID })
}

func (s *Server) selectActions(want func(*action) bool) []action {
	found := []action{}
	for _, a := range slices.Backward(s.actions) {
		if !a.hidden && want(a) {
			found = append(found, *a)
		}
	}
	return found
}

// oneAction answers with the action that the path names, if it is one on the given resource. The caller holds s.mu.
func (s *Server) oneAction(c *call, resourceType string, resourceID int) (reply, error) {
	id, err := c.number("action")
	if err != nil {
		return reply{}, err
	}
	a, ok := s.lookUpAction(id)
	if !ok || a.ResourceType != resourceType || a.ResourceID != resourceID {
		return reply{}, errNotFound
	}
	return actionReply(http.StatusOK, a), nil
}

// actionReply copies a, because the reply is encoded when the lock is no longer held.
func actionReply(status int, a *action) reply {
	return reply{status: status, body: map[string]action{"action": *a}}
}

func (s *Server) listActions(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return page(s, c, "actions", s.selectActions(func(*action) bool { return true })), nil
}

func (s *Server) getAction(c *call) (reply, error) {
	id, err := c.number("action")
	if err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.lookUpAction(id)
	if !ok {
		return reply{}, errNotFound
	}
	return actionReply(http.StatusOK, a), nil
}
