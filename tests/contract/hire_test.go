package contract

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/digitalocean/godo"

	"understudy/sidecar/cloud"
	"understudy/sidecar/cloud/localcloud"
	"understudy/sidecar/cluster"
)

// hiring is a machine as a sidecar asks for it.
func hiring(name string, sizes ...string) cloud.Hiring {
	if sizes == nil {
		sizes = []string{"s-1vcpu-1gb"}
	}
	return cloud.Hiring{Name: name, Tags: []string{"intent-00"}, Region: "lon1", Sizes: sizes, Image: "7555620", UserData: "#understudy-ticket v1\n{}"}
}

// named is how many machines of a name the account has, whatever its lists show.
func (a *account) named(name string) int {
	n := 0
	for _, m := range a.server.Machines() {
		if m.Name == name {
			n++
		}
	}
	return n
}

func TestAMachineIsCreatedAsItWasAskedForAndDeletedWhenItIsOff(t *testing.T) {
	a := open(t, nil)
	c := a.ours()
	key := must[*godo.Key](t)(a.do.Keys.Create(t.Context(), &godo.KeyCreateRequest{
		Name: "ops", PublicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ops",
	}))
	if key.ID == 0 {
		t.Fatal("no key")
	}
	h := hiring("web1")
	h.SSHKeys = []string{"ops"}
	m, err := c.Create(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "web1" || !slices.Contains(m.Tags, "blog") || !slices.Contains(m.Tags, "intent-00") {
		t.Errorf("got %+v, want both tags", m)
	}
	a.active(mustAtoi(t, m.ID))
	if err := c.Delete(t.Context(), m.ID, "web1"); !errors.Is(err, cloud.ErrRunning) {
		t.Errorf("delete while it runs: got %v, want ErrRunning", err)
	}
	if err := c.PowerOff(t.Context(), m.ID, "web2"); !errors.Is(err, cloud.ErrNotOurs) {
		t.Errorf("power off under another name: got %v, want ErrNotOurs", err)
	}
	if err := c.PowerOff(t.Context(), m.ID, "web1"); err != nil {
		t.Fatal(err)
	}
	power := func() cluster.Power { got, _ := c.Get(t.Context(), m.ID); return got.Power }
	a.until("machine off", func() bool { return power() == cluster.PowerOff })
	if err := c.Delete(t.Context(), m.ID, "web2"); !errors.Is(err, cloud.ErrNotOurs) {
		t.Errorf("delete under another name: got %v, want ErrNotOurs", err)
	}
	if err := c.Delete(t.Context(), m.ID, "web1"); err != nil {
		t.Fatal(err)
	}
	a.until("machine gone", func() bool { return power() == cluster.PowerGone })
	if err := c.Delete(t.Context(), m.ID, "web1"); err != nil {
		t.Errorf("delete once more: %v", err)
	}
}

func TestAMachineOfAnotherClusterIsNotDeleted(t *testing.T) {
	a := open(t, nil)
	d := a.boot("web1", "other")
	a.done(must[*godo.Action](t)(a.do.DropletActions.PowerOff(t.Context(), d.ID)).ID)
	if err := a.ours().Delete(t.Context(), strconv.Itoa(d.ID), "web1"); !errors.Is(err, cloud.ErrNotOurs) {
		t.Errorf("got %v, want ErrNotOurs", err)
	}
	if a.named("web1") != 1 {
		t.Error("it is deleted")
	}
}

func TestThePreferredSizeIsTakenThatIsToBeHad(t *testing.T) {
	a := open(t, nil)
	in := a.server.Inject(localcloud.Fault{Kind: localcloud.SizeUnavailable, Size: "s-1vcpu-1gb"})
	m, err := a.ours().Create(t.Context(), hiring("web1", "s-1vcpu-1gb", "s-1vcpu-2gb"))
	if err != nil {
		t.Fatal(err)
	}
	if d := a.active(mustAtoi(t, m.ID)); d.SizeSlug != "s-1vcpu-2gb" {
		t.Errorf("got size %s", d.SizeSlug)
	}
	if _, err := a.ours().Create(t.Context(), hiring("web2")); !errors.Is(err, cloud.ErrNoRoom) {
		t.Errorf("got %v, want ErrNoRoom", err)
	}
	in.Lift()
}

func TestAnImageIsFoundByItsName(t *testing.T) {
	a := open(t, func(o *localcloud.Options) {
		o.Images = append(o.Images, localcloud.Image{ID: 101, Name: "understudy-mine", Distribution: "Debian", MinDisk: 10, SizeGB: 0.5, Created: time.Now()})
	})
	h := hiring("web1")
	h.Image = "understudy-mine"
	m, err := a.ours().Create(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if d := a.active(mustAtoi(t, m.ID)); d.Image.ID != 101 {
		t.Errorf("got image %d, want 101", d.Image.ID)
	}
	h.Image = "understudy-other"
	if _, err := a.ours().Create(t.Context(), h); !errors.Is(err, cloud.ErrRefused) {
		t.Errorf("no such image: got %v, want ErrRefused", err)
	}
	h.SSHKeys = []string{"nobody"}
	if _, err := a.ours().Create(t.Context(), h); !errors.Is(err, cloud.ErrRefused) {
		t.Errorf("no such key: got %v, want ErrRefused", err)
	}
}

// TestWhatACreateCanMeetIsAskedOnce injects every fault. Whether there is a machine afterwards must be what the error says.
func TestWhatACreateCanMeetIsAskedOnce(t *testing.T) {
	for _, c := range []struct {
		kind     localcloud.FaultKind
		want     error // nil: one that says nothing of the machine
		accepted bool
		machines int
	}{
		{localcloud.RateLimited, &cloud.RateLimitedError{}, false, 0},
		{localcloud.SizeUnavailable, cloud.ErrNoRoom, false, 0},
		{localcloud.LimitReached, cloud.ErrLimit, false, 0},
		{localcloud.Unauthorized, cloud.ErrDenied, false, 0},
		{localcloud.Forbidden, cloud.ErrDenied, false, 0},
		{localcloud.AccountLocked, cloud.ErrDenied, false, 0},
		{localcloud.ServerError, nil, false, 0},
		{localcloud.LostAnswer, nil, false, 1},
		{localcloud.HangUp, nil, false, 1},
		{localcloud.AcceptedThenGone, nil, true, 0},
		{localcloud.ListLag, nil, true, 1},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			a := open(t, nil)
			in := a.server.Inject(localcloud.Fault{Kind: c.kind, Match: localcloud.Match{Method: http.MethodPost}, Delay: time.Second})
			_, err := a.ours().Create(t.Context(), hiring("web1"))
			in.Lift()
			_, limited := errors.AsType[*cloud.RateLimitedError](err)
			_, wantLimited := errors.AsType[*cloud.RateLimitedError](c.want)
			if (err == nil) != c.accepted || limited != wantLimited || c.want != nil && !wantLimited && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v, accepted %v", err, c.want, c.accepted)
			}
			definite := limited
			for _, e := range []error{cloud.ErrNoRoom, cloud.ErrLimit, cloud.ErrDenied, cloud.ErrRefused} {
				definite = definite || errors.Is(err, e)
			}
			if definite != (c.want != nil) {
				t.Errorf("%v says that there is no machine: %v, want %v", err, definite, c.want != nil)
			}
			if n := a.requests("POST /v2/droplets"); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
			a.until("as many machines as there should be", func() bool { return a.named("web1") == c.machines })
		})
	}
}

func TestAMachineWithAPendingEventIsDeletedLater(t *testing.T) {
	a := open(t, nil)
	d := a.boot("web1", "blog")
	a.done(must[*godo.Action](t)(a.do.DropletActions.PowerOff(t.Context(), d.ID)).ID)
	in := a.server.Inject(localcloud.Fault{Kind: localcloud.PendingEvent, Match: localcloud.Match{Method: http.MethodDelete}})
	if err := a.ours().Delete(t.Context(), strconv.Itoa(d.ID), "web1"); !errors.Is(err, cloud.ErrPending) {
		t.Errorf("got %v, want ErrPending", err)
	}
	in.Lift()
	if err := a.ours().Delete(t.Context(), strconv.Itoa(d.ID), "web1"); err != nil {
		t.Error(err)
	}
}
