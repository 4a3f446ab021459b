package localcloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// dropletActionRequest is the body of POST /v2/droplets/{id}/actions; which members count depends on Type.
type dropletActionRequest struct {
	Type  string   `json:"type"`
	Name  string   `json:"name"`
	Image textOrID `json:"image"`
	Size  string   `json:"size"`
	Disk  bool     `json:"disk"`
}

// knownActions are all types in DigitalOcean's description. Those that this cloud offers have an entry in plan.
var knownActions = []string{
	"enable_backups", "disable_backups", "change_backup_policy", "reboot", "power_cycle", "shutdown", "power_off", "power_on",
	"restore", "password_reset", "resize", "rebuild", "rename", "change_kernel", "enable_ipv6", "snapshot",
}

// decodeDropletAction reads the body of an action and checks what can be judged without the droplet.
func decodeDropletAction(data []byte) (dropletActionRequest, error) {
	var req dropletActionRequest
	if err := decodeJSON(data, &req); err != nil {
		return dropletActionRequest{}, err
	}
	if !slices.Contains(knownActions, req.Type) {
		return dropletActionRequest{}, unprocessable("You specified an invalid type for the action.") // Ours.
	}
	if req.Type == "rename" {
		if err := checkName(req.Name); err != nil {
			return dropletActionRequest{}, err
		}
	}
	return req, nil
}

// plan is what an action does: work drives the backend, apply changes the records once that has succeeded.
type plan struct {
	work  func(ctx context.Context, m Machine) error
	apply func(now time.Time)
}

func nothing(context.Context, Machine) error { return nil }

func (s *Server) createDropletAction(c *call) (reply, error) {
	data, err := c.body()
	if err != nil {
		return reply{}, err
	}
	req, err := decodeDropletAction(data)
	if err != nil {
		return reply{}, err
	}
	id, err := c.number("droplet")
	if err != nil {
		return reply{}, err
	}
	// Asked before the lock is taken, because it is the backend's to answer. Only actions change the power on
	// purpose, and none begins while another is pending; a machine that dies by itself in between is one that died
	// a moment later.
	running := s.backend.Running(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.find(c)
	if err != nil {
		return reply{}, err
	}
	if d.pending != 0 {
		return reply{}, errPending
	}
	if err := powerConflict(req.Type, running); err != nil {
		return reply{}, err
	}
	p, err := s.planAction(d, req)
	if err != nil {
		return reply{}, err
	}
	a := s.newAction(c, req.Type, resourceDroplet, d.machine.ID, d.region)
	answer := actionReply(http.StatusCreated, a)
	s.runOn(d, a, c.fx, p.work, p.apply)
	return answer, nil
}

// powerConflict refuses what makes no sense in the droplet's state. The texts of the first two are known from
// Terraform's provider, that of resize from users' reports; the last is ours.
func powerConflict(kind string, running bool) error {
	switch {
	case kind == "power_on" && running:
		return unprocessable("Droplet is already powered on")
	case (kind == "power_off" || kind == "shutdown") && !running:
		return unprocessable("Droplet is already powered off")
	case kind == "resize" && running:
		return unprocessable("Droplet is currently on. Please power it off to run this event.")
	case kind == "reboot" && !running:
		return unprocessable("Droplet is currently off. Please power it on to run this event.")
	}
	return nil
}

// planAction decides what an action on d does. The caller holds s.mu; work runs without it.
func (s *Server) planAction(d *droplet, req dropletActionRequest) (plan, error) {
	p := plan{work: nothing, apply: func(time.Time) {}}
	switch req.Type {
	case "power_off":
		p.work = func(ctx context.Context, m Machine) error { return s.backend.PowerOff(ctx, m.ID) }
	case "power_on":
		p.work = s.backend.Boot
	case "power_cycle":
		p.work = func(ctx context.Context, m Machine) error {
			return errors.Join(s.backend.PowerOff(ctx, m.ID), s.backend.Boot(ctx, m))
		}
	case "shutdown":
		p.work = s.shutDown
	case "reboot":
		p.work = func(ctx context.Context, m Machine) error {
			return errors.Join(s.shutDown(ctx, m), s.backend.Boot(ctx, m))
		}
	case "rename":
		p.apply = func(time.Time) { d.machine.Name = req.Name }
	case "enable_backups":
		p.apply = func(time.Time) { d.backups = true }
	case "disable_backups":
		p.apply = func(time.Time) { d.backups = false }
	case "resize":
		return s.planResize(d, req, p)
	case "rebuild":
		return s.planRebuild(d, req, p)
	case "snapshot":
		return s.planSnapshot(d, req, p)
	default:
		return plan{}, unprocessable(fmt.Sprintf("This local cloud does not offer the action %s.", req.Type))
	}
	return p, nil
}

func (s *Server) planResize(d *droplet, req dropletActionRequest, p plan) (plan, error) {
	z, ok := s.opt.size(req.Size)
	switch {
	case !ok:
		return plan{}, unprocessable("You specified an invalid size.") // Ours.
	case !z.offered(d.region.Slug):
		return plan{}, errNoSize
	case z.Slug == d.size.Slug:
		return plan{}, unprocessable("The droplet is already set to this size.")
	case z.Disk < d.size.Disk:
		return plan{}, unprocessable("This size is not available because it has a smaller disk.")
	}
	p.apply = func(time.Time) {
		if !req.Disk {
			z.Disk = d.size.Disk
		}
		d.size, d.machine.Size = z, z.Slug
	}
	return p, nil
}

func (s *Server) planRebuild(d *droplet, req dropletActionRequest, p plan) (plan, error) {
	im := s.imageForCreate(req.Image)
	if im == nil {
		return plan{}, unprocessable("You specified an invalid image.") // Ours.
	}
	p.work = func(ctx context.Context, m Machine) error {
		if err := s.backend.Erase(ctx, m.ID); err != nil {
			return fmt.Errorf("erase the old disk: %w", err)
		}
		m.Image = im.backend
		return s.backend.Boot(ctx, m)
	}
	p.apply = func(time.Time) { d.image, d.machine.Image = im.copyJSON(), im.backend }
	return p, nil
}

func (s *Server) planSnapshot(d *droplet, req dropletActionRequest, p plan) (plan, error) {
	name := req.Name
	if name == "" {
		name = fmt.Sprintf("%s-%d", d.machine.Name, time.Now().UnixMilli())
	}
	imageID := s.newID()
	disk := fmt.Sprintf("image-%d", imageID)
	p.work = func(ctx context.Context, m Machine) error {
		maker, ok := s.backend.(Imager)
		if !ok {
			return errors.New("the backend cannot make images of machines")
		}
		return maker.MakeImage(ctx, m.ID, disk)
	}
	p.apply = func(now time.Time) { s.images[imageID] = imageOf(d, imageID, name, disk, now) }
	return p, nil
}

// shutDown asks the machine to stop. As at DigitalOcean the action says only that it was asked: a machine that does
// not obey in time is left running and the action completes all the same.
func (s *Server) shutDown(ctx context.Context, m Machine) error {
	soft, ok := s.backend.(Shutdowner)
	if !ok {
		return s.backend.PowerOff(ctx, m.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.ShutdownWait)
	defer cancel()
	if err := soft.Shutdown(ctx, m.ID); err != nil {
		s.log.Warn("a machine did not shut down when asked to", "machine", m.ID, "err", err)
	}
	return nil
}

// deleteDroplet answers 204 and destroys the machine in the background. The droplet can be read until the backend
// has confirmed that it is gone, so that whoever waits for the 404 may rely on it.
func (s *Server) deleteDroplet(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.find(c)
	if err != nil {
		return reply{}, err
	}
	if d.pending != 0 {
		return reply{}, errPending
	}
	a := s.newAction(c, "destroy", resourceDroplet, d.machine.ID, d.region)
	erase := func(ctx context.Context, m Machine) error { return s.backend.Erase(ctx, m.ID) }
	s.runOn(d, a, c.fx, erase, func(now time.Time) {
		s.bury(d, now)
		s.releaseIPs(d.machine.ID)
	})
	return reply{status: http.StatusNoContent}, nil
}
