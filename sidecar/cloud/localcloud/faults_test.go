package localcloud

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestListsThatLie(t *testing.T) {
	const minute = time.Minute
	for _, tc := range []struct {
		fault Fault
		// which of an old, a new and a just destroyed droplet a list shows
		want []string
	}{
		{Fault{Kind: Slow}, []string{"old", "new"}},
		{Fault{Kind: ListLag, Delay: minute}, []string{"old"}},
		{Fault{Kind: DeletedListed, Delay: minute}, []string{"old", "gone", "new"}},
		{Fault{Kind: StaleList, Delay: minute}, []string{"old", "gone"}},
		{Fault{Kind: EmptyList}, []string{}},
	} {
		t.Run(string(tc.fault.Kind), func(t *testing.T) {
			inBubble(t, nil, func(c *cloud) {
				ids := map[string]int{"old": c.booted("old"), "gone": c.booted("gone")}
				c.pass(time.Hour)
				c.want(http.StatusNoContent, "DELETE", fmt.Sprintf("/v2/droplets/%d", ids["gone"]), "")
				ids["new"], _ = c.create("new")
				c.pass(30 * time.Second)
				in := c.s.Inject(tc.fault)
				want := []int{}
				for _, name := range tc.want {
					want = append(want, ids[name])
				}
				slices.Sort(want)
				if got := c.listed("?tag_name=blog"); !slices.Equal(got, want) {
					t.Errorf("got %v, want %v of %v", got, want, ids)
				}
				// Reading by ID tells the truth: absence is proven by ID alone.
				c.want(http.StatusOK, "GET", fmt.Sprintf("/v2/droplets/%d", ids["new"]), "")
				c.want(http.StatusNotFound, "GET", fmt.Sprintf("/v2/droplets/%d", ids["gone"]), "")
				if in.Hits() == 0 {
					t.Error("the fault touched nothing")
				}
				if tc.fault.Kind != EmptyList {
					c.pass(time.Minute)
					if got := c.listed(""); !slices.Equal(got, []int{ids["old"], ids["new"]}) {
						t.Errorf("a minute later: got %v, want the truth", got)
					}
				}
			})
		})
	}
}

func TestPartialListLeavesOutSomethingAndCountsTheRest(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		for i := range 10 {
			c.booted(fmt.Sprintf("web%d", i))
		}
		in := c.s.Inject(Fault{Kind: PartialList, Share: 0.3})
		for range 20 {
			o := c.want(http.StatusOK, "GET", "/v2/droplets", "")
			shown, total := len(o["droplets"].([]any)), whole(o["meta"].(object)["total"])
			if shown == 10 || total != shown {
				t.Errorf("got %d of 10, total %d, want fewer than 10 and a total that hides it", shown, total)
			}
		}
		in.Lift()
		if got := len(c.listed("")); got != 10 {
			t.Errorf("lifted: got %d, want 10", got)
		}
	})
}

func TestReadingByIDMayLagToo(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.s.Inject(Fault{Kind: NewMissing, Delay: 3 * time.Second})
		id, _ := c.create("web1")
		path := fmt.Sprintf("/v2/droplets/%d", id)
		c.want(http.StatusNotFound, "GET", path, "")
		c.pass(4 * time.Second)
		c.want(http.StatusOK, "GET", path, "")
	})
}

func TestStatusMayLagBehindACompletedAction(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		id := c.booted("web1")
		c.s.Inject(Fault{Kind: StatusLag, Delay: 5 * time.Second})
		action := c.act(id, `{"type": "power_off"}`)
		c.pass(3 * time.Second)
		if got := c.droplet(id)["status"]; got != "active" || c.actionStatus(action) != "completed" {
			t.Errorf("got %v, want active although the action is completed", got)
		}
		c.pass(5 * time.Second)
		if got := c.droplet(id)["status"]; got != "off" {
			t.Errorf("got %v, want off", got)
		}
	})
}

func TestFaultTouchesWhatItsMatchAndCountsSay(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		in := c.s.Inject(Fault{Kind: ServerError, Match: Match{Method: "GET", Path: "/v2/droplets"}, Skip: 1, Times: 2, Status: 500})
		got := []int{}
		for range 4 {
			status, _ := c.do("GET", "/v2/droplets", "")
			other, _ := c.do("GET", "/v2/account", "")
			got = append(got, status, other)
		}
		if want := []int{200, 200, 500, 200, 500, 200, 200, 200}; !slices.Equal(got, want) || in.Hits() != 2 {
			t.Errorf("got %v, %d hits, want %v, 2", got, in.Hits(), want)
		}
	})
}

func TestSizeCanBeUnavailableAlone(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.s.Inject(Fault{Kind: SizeUnavailable, Size: "s-1vcpu-1gb"})
		body := func(size string) string {
			return fmt.Sprintf(`{"name": "web1", "region": "lon1", "size": %q, "image": 7555620}`, size)
		}
		c.refused(422, "Size is not available in this region.", "POST", "/v2/droplets", body("s-1vcpu-1gb"))
		c.want(http.StatusAccepted, "POST", "/v2/droplets", body("s-1vcpu-2gb"))
	})
}

func TestActionCanBeMissingAndSlow(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		id := c.booted("web1")
		slow := c.s.Inject(Fault{Kind: SlowAction, Delay: time.Minute, Times: 1})
		action := c.act(id, `{"type": "power_off"}`)
		c.pass(time.Minute)
		if got := c.actionStatus(action); got != "in-progress" || slow.Hits() != 1 {
			t.Errorf("got %s, want in-progress", got)
		}
		c.pass(time.Minute)
		missing := c.s.Inject(Fault{Kind: ActionMissing})
		c.want(http.StatusNotFound, "GET", fmt.Sprintf("/v2/actions/%d", action), "")
		c.want(http.StatusNotFound, "GET", fmt.Sprintf("/v2/droplets/%d/actions/%d", id, action), "")
		missing.Lift()
		if got := c.actionStatus(action); got != "completed" {
			t.Errorf("got %s, want completed", got)
		}
	})
}

func TestAcceptedDropletNeverComes(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.s.Inject(Fault{Kind: AcceptedThenGone, Times: 1})
		id, action := c.create("web1")
		c.want(http.StatusNotFound, "GET", fmt.Sprintf("/v2/droplets/%d", id), "")
		c.want(http.StatusNotFound, "GET", fmt.Sprintf("/v2/actions/%d", action), "")
		c.pass(time.Hour)
		if got := c.listed(""); len(got) != 0 || len(c.backend.Disks()) != 0 {
			t.Errorf("got %v, disks %v, want nothing", got, c.backend.Disks())
		}
	})
}

func TestLockedAccountSaysSo(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.s.Inject(Fault{Kind: AccountLocked})
		if got := c.want(http.StatusOK, "GET", "/v2/account", "")["account"].(object)["status"]; got != "locked" {
			t.Errorf("got %v, want locked", got)
		}
		c.refused(403, errForbidden.message, "POST", "/v2/droplets", `{}`)
	})
}

func TestFaultOnARequestThatIsForbiddenAnywayIsNotSpent(t *testing.T) {
	inBubble(t, func(o *Options) { o.Scoped = map[string][]string{"reader": {"droplet:read"}} }, func(c *cloud) {
		in := c.s.Inject(Fault{Kind: LostAnswer, Times: 1})
		if got := c.as("reader", "POST", "/v2/droplets", `{}`).Code; got != http.StatusForbidden {
			t.Errorf("got %d, want 403", got)
		}
		if got := c.as("reader", "GET", "/v2/droplets", ``).Code; got != http.StatusOK || in.Hits() != 0 {
			t.Errorf("got %d, %d hits, want 200 and the fault unspent", got, in.Hits())
		}
	})
}

// storm drives a cloud for some simulated minutes through every fault and returns what happened, one line a request.
func storm(c *cloud) string {
	var history strings.Builder
	var injections []*Injection
	for _, f := range Storm(0.2, 3*time.Second) {
		injections = append(injections, c.s.Inject(f))
	}
	for i := range 60 {
		method, path, body := "GET", "/v2/droplets", ""
		ids := c.s.Machines()
		switch {
		case i%3 == 0:
			method, body = "POST", fmt.Sprintf(`{"name": "n%d", "region": "lon1", "size": "s-1vcpu-1gb", "image": 7555620}`, i)
		case i%5 == 1 && len(ids) > 0:
			method, path = "DELETE", fmt.Sprintf("/v2/droplets/%d", ids[i%len(ids)].ID)
		case i%5 == 2 && len(ids) > 0:
			method, path, body = "POST", fmt.Sprintf("/v2/droplets/%d/actions", ids[i%len(ids)].ID), `{"type": "power_off"}`
		}
		fmt.Fprintf(&history, "%s %s %d\n", method, path, c.status(method, path, body))
		c.pass(7 * time.Second)
	}
	for _, in := range injections {
		in.Lift()
	}
	c.pass(time.Hour)
	return history.String()
}

// status sends a request that may be hung up on, which is 0.
func (c *cloud) status(method, path, body string) (status int) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		}
	}()
	return c.as(testToken, method, path, body).Code
}

// TestRecordsAgreeWithTheMachinesAfterAnyStorm states the law: whatever was answered, once the faults are over and
// the actions have ended, the API shows exactly the machines that there are, with the power they have.
func TestRecordsAgreeWithTheMachinesAfterAnyStorm(t *testing.T) {
	for seed := range uint64(20) {
		inBubble(t, func(o *Options) { o.Seed = seed }, func(c *cloud) {
			storm(c)
			shown := map[int]string{}
			for _, id := range c.listed("?per_page=200") {
				d := c.droplet(id)
				shown[id] = d["status"].(string)
				if d["locked"] != false {
					t.Errorf("seed %d: droplet %d is locked for ever", seed, id)
				}
			}
			disks := c.backend.Disks()
			for id := range disks {
				want := map[bool]string{true: "active", false: "off"}[c.backend.Running(id)]
				if shown[id] != want {
					t.Errorf("seed %d: machine %d is %s, the API says %q", seed, id, want, shown[id])
				}
			}
			if len(shown) != len(disks) {
				t.Errorf("seed %d: got %d droplets and %d machines", seed, len(shown), len(disks))
			}
		})
	}
}

func TestSameSeedGivesTheSameHistory(t *testing.T) {
	var histories []string
	for _, seed := range []uint64{7, 7, 8} {
		inBubble(t, func(o *Options) { o.Seed = seed }, func(c *cloud) {
			histories = append(histories, storm(c))
		})
	}
	if histories[0] != histories[1] {
		t.Errorf("seed 7 twice: got\n%s\nthen\n%s", histories[0], histories[1])
	}
	if histories[0] == histories[2] {
		t.Error("seeds 7 and 8 gave the same history: the faults do not depend on the seed")
	}
}
