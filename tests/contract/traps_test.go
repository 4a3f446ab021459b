package contract

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/digitalocean/godo"

	"understudy/sidecar/cloud/localcloud"
)

// posts counts the create requests that were sent.
func (a *account) posts() int {
	a.rec.mu.Lock()
	defer a.rec.mu.Unlock()
	n := 0
	for _, sent := range a.rec.sent {
		if sent == "POST /v2/droplets" {
			n++
		}
	}
	return n
}

// TestCreatesThatAnswerBadly is what every client of DigitalOcean must cope with: how a create can end for the
// client, and what there is afterwards. godo without retries sends one request in each case.
func TestCreatesThatAnswerBadly(t *testing.T) {
	const create = "/v2/droplets"
	for _, tc := range []struct {
		name    string
		fault   localcloud.Fault
		status  int // 0: the connection broke; 202: accepted
		message string
		left    int // machines in the end
	}{
		{"server error before commit", localcloud.Fault{Kind: localcloud.ServerError}, 503, "", 0},
		{"committed but 502", localcloud.Fault{Kind: localcloud.LostAnswer}, 502, "", 1},
		{"committed but 504", localcloud.Fault{Kind: localcloud.LostAnswer, Status: 504}, 504, "", 1},
		{"committed but the connection broke", localcloud.Fault{Kind: localcloud.HangUp}, 0, "", 1},
		{"accepted, then 404", localcloud.Fault{Kind: localcloud.AcceptedThenGone}, 202, "", 0},
		{"accepted, then its action errors", localcloud.Fault{Kind: localcloud.ActionErrored}, 202, "", 0},
		{"too many requests", localcloud.Fault{Kind: localcloud.RateLimited}, 429, "API rate limit exceeded.", 0},
		{"size not available", localcloud.Fault{Kind: localcloud.SizeUnavailable}, 422, "Size is not available in this region.", 0},
		{"droplet limit", localcloud.Fault{Kind: localcloud.LimitReached}, 422, "creating this/these droplet(s) will exceed your droplet limit", 0},
		{"token revoked", localcloud.Fault{Kind: localcloud.Unauthorized}, 401, "Unable to authenticate you.", 0},
		{"token without the scope", localcloud.Fault{Kind: localcloud.Forbidden}, 403, "", 0},
		{"account locked", localcloud.Fault{Kind: localcloud.AccountLocked}, 403, "", 0},
		{"slow", localcloud.Fault{Kind: localcloud.Slow, Delay: 20 * time.Millisecond}, 202, "", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := open(t, nil)
			tc.fault.Match = localcloud.Match{Method: http.MethodPost, Path: create}
			tc.fault.Times = 1
			in := a.server.Inject(tc.fault)
			d, resp, err := a.do.Droplets.Create(t.Context(), created("web1", "blog", "intent-1"))
			var refused *godo.ErrorResponse
			switch {
			case tc.status == http.StatusAccepted && err != nil:
				t.Fatalf("got error %v, want 202", err)
			case tc.status == http.StatusAccepted:
				if resp.StatusCode != tc.status || d.ID == 0 {
					t.Errorf("got %d, droplet %d, want 202 and an id", resp.StatusCode, d.ID)
				}
			case tc.status == 0:
				if err == nil || errors.As(err, &refused) {
					t.Errorf("got %v, want a broken connection", err)
				}
			default:
				wantRefusal(t, err, tc.status, tc.message)
			}
			if in.Hits() != 1 || a.posts() != 1 {
				t.Errorf("got %d requests and %d hits, want 1 and 1", a.posts(), in.Hits())
			}
			a.until("what is left has settled", func() bool {
				left := a.server.Machines()
				return len(left) == tc.left && (tc.left == 0 || left[0].Status == "active")
			})
			if got := len(a.backend.Disks()); got != tc.left {
				t.Errorf("got %d disks, want %d", got, tc.left)
			}
			byTag := must[[]godo.Droplet](t)(a.do.Droplets.ListByTag(t.Context(), "intent-1", nil))
			if len(byTag) != tc.left {
				t.Errorf("got %d by the intent's tag, want %d: looking is how an ambiguous create is resolved", len(byTag), tc.left)
			}
			if d != nil && tc.left == 0 {
				_, _, err := a.do.Droplets.Get(t.Context(), d.ID)
				wantRefusal(t, err, http.StatusNotFound, "")
			}
		})
	}
}

func TestRepeatingAnAmbiguousCreateMakesTwoMachinesOfOneName(t *testing.T) {
	a := open(t, nil)
	a.server.Inject(localcloud.Fault{Kind: localcloud.LostAnswer, Times: 1, Match: localcloud.Match{Method: http.MethodPost}})
	for range 2 {
		_, _, _ = a.do.Droplets.Create(t.Context(), created("web1")) // The first fails, though not for the cloud.
	}
	if got := must[[]godo.Droplet](t)(a.do.Droplets.ListByName(t.Context(), "web1", nil)); len(got) != 2 {
		t.Errorf("got %d droplets, want 2: names are not unique", len(got))
	}
}

func TestRetryAfterComesOnlyWithABurst(t *testing.T) {
	a := open(t, nil)
	for _, tc := range []struct {
		delay time.Duration
		want  string
	}{{0, ""}, {1500 * time.Millisecond, "2"}} {
		in := a.server.Inject(localcloud.Fault{Kind: localcloud.RateLimited, Delay: tc.delay})
		_, resp, err := a.do.Account.Get(t.Context())
		wantRefusal(t, err, http.StatusTooManyRequests, "")
		if got := resp.Header.Get("Retry-After"); got != tc.want {
			t.Errorf("got Retry-After %q, want %q", got, tc.want)
		}
		in.Lift()
	}
}

func TestGodoReadsTheRateLimit(t *testing.T) {
	a := open(t, func(o *localcloud.Options) { o.Rate = localcloud.RateLimit{PerHour: 3} })
	for want := 2; want >= 0; want-- {
		_, resp, err := a.do.Account.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if resp.Rate.Limit != 3 || resp.Rate.Remaining != want || time.Until(resp.Rate.Reset.Time) > time.Hour {
			t.Errorf("got %+v, want limit 3, remaining %d, reset within the hour", resp.Rate, want)
		}
	}
	_, resp, err := a.do.Account.Get(t.Context())
	wantRefusal(t, err, http.StatusTooManyRequests, "API rate limit exceeded.")
	if got := resp.Header.Get("Retry-After"); got != "" {
		t.Errorf("got Retry-After %q for the limit per hour, want none", got)
	}
}

func TestOneActionAtATime(t *testing.T) {
	a := open(t, func(o *localcloud.Options) { o.ReservedIPLimit = 3 })
	ctx := t.Context()
	d := a.boot("lb1")
	other := a.boot("lb2")
	ip := must[*godo.ReservedIP](t)(a.do.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{Region: "lon1"}))
	slow := a.server.Inject(localcloud.Fault{Kind: localcloud.SlowAction, Delay: time.Hour})
	must[*godo.Action](t)(a.do.DropletActions.Reboot(ctx, d.ID))
	must[*godo.Action](t)(a.do.ReservedIPActions.Assign(ctx, ip.IP, other.ID))
	slow.Lift()
	const droplet, address = "Droplet already has a pending event.", "The floating IP already has a pending event."
	_, _, err := a.do.DropletActions.PowerOff(ctx, d.ID)
	wantRefusal(t, err, http.StatusUnprocessableEntity, droplet)
	_, err = a.do.Droplets.Delete(ctx, d.ID)
	wantRefusal(t, err, http.StatusUnprocessableEntity, droplet)
	_, _, err = a.do.ReservedIPActions.Unassign(ctx, ip.IP)
	wantRefusal(t, err, http.StatusUnprocessableEntity, address)
	_, _, err = a.do.ReservedIPActions.Assign(ctx, ip.IP, d.ID)
	wantRefusal(t, err, http.StatusUnprocessableEntity, address)
	_, err = a.do.ReservedIPs.Delete(ctx, ip.IP)
	wantRefusal(t, err, http.StatusUnprocessableEntity, address)
	if got := must[*godo.ReservedIP](t)(a.do.ReservedIPs.Get(ctx, ip.IP)); !got.Locked || got.Droplet != nil {
		t.Errorf("got %+v, want locked and still nobody's", got)
	}
	second := must[*godo.ReservedIP](t)(a.do.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{Region: "lon1"}))
	_, _, err = a.do.ReservedIPActions.Assign(ctx, second.IP, other.ID)
	wantRefusal(t, err, http.StatusUnprocessableEntity, "")
}

func TestLimitsOfTheAccount(t *testing.T) {
	a := open(t, func(o *localcloud.Options) { o.DropletLimit = 2 })
	ctx := t.Context()
	a.boot("web1")
	_, _, err := a.do.Droplets.CreateMultiple(ctx, &godo.DropletMultiCreateRequest{
		Names: []string{"web2", "web3"}, Region: "lon1", Size: "s-1vcpu-1gb", Image: godo.DropletCreateImage{ID: 7555620},
	})
	wantRefusal(t, err, http.StatusUnprocessableEntity, "creating this/these droplet(s) will exceed your droplet limit")
	if got := len(a.server.Machines()); got != 1 {
		t.Errorf("got %d machines after a refused create of two, want 1: all or none", got)
	}
	for range 3 {
		must[*godo.ReservedIP](t)(a.do.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{Region: "lon1"}))
	}
	_, _, err = a.do.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{Region: "lon1"})
	wantRefusal(t, err, http.StatusUnprocessableEntity, "")
}

func TestDestroyByTagDestroysNothing(t *testing.T) {
	a := open(t, nil)
	a.boot("web1", "blog")
	a.boot("web2", "blog")
	_, err := a.do.Droplets.DeleteByTag(t.Context(), "blog")
	wantRefusal(t, err, http.StatusForbidden, "")
	_, _, err = a.do.DropletActions.PowerOffByTag(t.Context(), "blog")
	wantRefusal(t, err, http.StatusForbidden, "")
	for _, m := range a.server.Machines() {
		if m.Status != "active" || m.Locked {
			t.Errorf("got %s %s, locked %v, want it untouched", m.Name, m.Status, m.Locked)
		}
	}
}
