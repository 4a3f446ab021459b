package localcloud

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// reserve reserves an address in London.
func (c *cloud) reserve() string {
	c.t.Helper()
	o := c.want(http.StatusAccepted, "POST", "/v2/reserved_ips", `{"region": "lon1"}`)
	return o["reserved_ip"].(object)["ip"].(string)
}

func (c *cloud) assign(ip string, id int) (action int) {
	c.t.Helper()
	o := c.want(http.StatusCreated, "POST", "/v2/reserved_ips/"+ip+"/actions", fmt.Sprintf(`{"type": "assign", "droplet_id": %d}`, id))
	return whole(o["action"].(object)["id"])
}

// holder reads who has an address, by the API; 0 is nobody.
func (c *cloud) holder(ip string) int {
	c.t.Helper()
	d, ok := c.want(http.StatusOK, "GET", "/v2/reserved_ips/"+ip, "")["reserved_ip"].(object)["droplet"].(object)
	if !ok {
		return 0
	}
	return whole(d["id"])
}

// routed reports whether traffic for ip goes to droplet id, or to nobody for 0.
func (c *cloud) routed(ip string, id int) bool {
	want := netip.Addr{}
	for _, m := range c.s.Machines() {
		if m.ID == id {
			want = m.Anchor
		}
	}
	return c.backend.RouteOf(netip.MustParseAddr(ip)) == want
}

func TestAddressMovesWhenItsActionEndsAndNotBefore(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		lb1, lb2, ip := c.booted("lb1"), c.booted("lb2"), c.reserve()
		c.assign(ip, lb1)
		c.pass(time.Minute)
		action := c.assign(ip, lb2)
		c.pass(time.Second)
		if c.holder(ip) != lb1 || !c.routed(ip, lb1) || c.actionStatus(action) != "in-progress" {
			t.Errorf("under way: got holder %d, want the old one, %d", c.holder(ip), lb1)
		}
		c.pass(2 * time.Second)
		if c.holder(ip) != lb2 || !c.routed(ip, lb2) || c.actionStatus(action) != "completed" {
			t.Errorf("after: got holder %d, want %d", c.holder(ip), lb2)
		}
		held := map[int]netip.Addr{}
		for _, m := range c.s.Machines() {
			held[m.ID] = m.Reserved
		}
		if held[lb1].IsValid() || held[lb2].String() != ip || c.s.Reserved()[netip.MustParseAddr(ip)] != lb2 {
			t.Errorf("got %v, want only lb2 with %s", held, ip)
		}
	})
}

func TestAddressThatCannotBeMovedStays(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		lb1, lb2, ip := c.booted("lb1"), c.booted("lb2"), c.reserve()
		c.assign(ip, lb1)
		c.pass(time.Minute)
		c.backend.FailNext("Route", errors.New("nft: busy"))
		action := c.assign(ip, lb2)
		c.pass(time.Minute)
		if c.holder(ip) != lb1 || c.actionStatus(action) != "errored" || !strings.Contains(c.log.String(), "nft: busy") {
			t.Errorf("got holder %d, action %s, want %d, errored, and the cause in the log", c.holder(ip), c.actionStatus(action), lb1)
		}
		c.s.Inject(Fault{Kind: ActionErrored, Times: 1})
		action = c.assign(ip, lb2)
		c.pass(time.Minute)
		if c.holder(ip) != lb1 || c.actionStatus(action) != "errored" {
			t.Errorf("fault: got holder %d, action %s, want %d, errored", c.holder(ip), c.actionStatus(action), lb1)
		}
	})
}

func TestAddressOfADestroyedMachineIsNobodys(t *testing.T) {
	for name, story := range map[string]func(c *cloud, lb1, lb2 int, ip string){
		"the holder goes": func(c *cloud, lb1, _ int, ip string) {
			c.want(http.StatusNoContent, "DELETE", fmt.Sprintf("/v2/droplets/%d", lb1), "")
		},
		"both go while the address moves": func(c *cloud, lb1, lb2 int, ip string) {
			slow := c.s.Inject(Fault{Kind: SlowAction, Delay: 10 * time.Second})
			c.assign(ip, lb2)
			slow.Lift()
			c.want(http.StatusNoContent, "DELETE", fmt.Sprintf("/v2/droplets/%d", lb1), "")
			c.want(http.StatusNoContent, "DELETE", fmt.Sprintf("/v2/droplets/%d", lb2), "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(c *cloud) {
				lb1, lb2, ip := c.booted("lb1"), c.booted("lb2"), c.reserve()
				c.assign(ip, lb1)
				c.pass(time.Minute)
				story(c, lb1, lb2, ip)
				c.pass(time.Minute)
				o := c.want(http.StatusOK, "GET", "/v2/reserved_ips/"+ip, "")["reserved_ip"].(object)
				if o["droplet"] != nil || o["locked"] != false || !c.routed(ip, 0) {
					t.Errorf("got %v, want nobody's, free, and no route", o)
				}
				lb3 := c.booted("lb3")
				c.assign(ip, lb3)
				c.pass(time.Minute)
				if c.holder(ip) != lb3 {
					t.Errorf("got holder %d, want that it can be assigned again, to %d", c.holder(ip), lb3)
				}
			})
		})
	}
}

func TestAssignmentsThatAreRefused(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		lb1, ip, second := c.booted("lb1"), c.reserve(), c.reserve()
		away := c.want(http.StatusAccepted, "POST", "/v2/droplets", `{"name": "nyc", "region": "nyc3", "size": "s-1vcpu-1gb", "image": 7555620}`)
		nyc := whole(away["droplet"].(object)["id"])
		path := "/v2/reserved_ips/" + ip + "/actions"
		assign := func(id int) string { return fmt.Sprintf(`{"type": "assign", "droplet_id": %d}`, id) }
		c.refused(422, "Droplet already has a pending event.", "POST", path, assign(nyc))
		c.pass(time.Minute)
		c.refused(422, errIPRegion.message, "POST", path, assign(nyc))
		c.refused(404, errNotFound.message, "POST", path, assign(1))
		c.refused(422, errIPNoHolder.message, "POST", path, `{"type": "unassign"}`)
		c.refused(422, "You specified an invalid type for the action.", "POST", path, `{"type": "steal"}`)
		c.refused(404, errNotFound.message, "POST", "/v2/reserved_ips/203.0.113.99/actions", assign(lb1))
		c.refused(404, errNotFound.message, "GET", "/v2/reserved_ips/nonsense", "")
		c.assign(ip, lb1)
		c.refused(422, "The floating IP already has a pending event.", "POST", path, assign(nyc))
		c.refused(422, errIPTaken.message, "POST", "/v2/reserved_ips/"+second+"/actions", assign(lb1))
		c.pass(time.Minute)
		c.refused(422, errIPTaken.message, "POST", path, assign(lb1))
		c.refused(422, errIPTaken.message, "POST", "/v2/reserved_ips", fmt.Sprintf(`{"droplet_id": %d}`, lb1))
		c.refused(404, errNotFound.message, "POST", "/v2/reserved_ips", `{"droplet_id": 1}`)
		c.refused(422, "You specified an invalid region.", "POST", "/v2/reserved_ips", `{}`)
		c.reserve()
		c.refused(422, errIPLimit.message, "POST", "/v2/reserved_ips", `{"region": "lon1"}`)
	})
}

func TestAddressGivenUpHasNoRoute(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		lb1, ip := c.booted("lb1"), c.reserve()
		c.assign(ip, lb1)
		c.pass(time.Minute)
		c.backend.FailNext("Route", errors.New("nft: busy"))
		c.want(http.StatusNoContent, "DELETE", "/v2/reserved_ips/"+ip, "")
		c.pass(time.Minute)
		if c.holder(ip) != lb1 {
			t.Error("the route could not be removed, and the address is gone")
		}
		c.want(http.StatusNoContent, "DELETE", "/v2/reserved_ips/"+ip, "")
		c.pass(time.Minute)
		c.want(http.StatusNotFound, "GET", "/v2/reserved_ips/"+ip, "")
		if !c.routed(ip, 0) {
			t.Error("the address is gone, and its traffic still goes somewhere")
		}
	})
}

func TestAddressStaysWhenItsTargetGoesFirst(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		lb1, lb2, ip := c.booted("lb1"), c.booted("lb2"), c.reserve()
		c.assign(ip, lb1)
		c.pass(time.Minute)
		slow := c.s.Inject(Fault{Kind: SlowAction, Delay: 10 * time.Second})
		action := c.assign(ip, lb2)
		slow.Lift()
		c.want(http.StatusNoContent, "DELETE", fmt.Sprintf("/v2/droplets/%d", lb2), "")
		c.pass(time.Minute)
		if c.holder(ip) != lb1 || !c.routed(ip, lb1) || c.actionStatus(action) != "errored" {
			t.Errorf("got holder %d, action %s, want %d, errored", c.holder(ip), c.actionStatus(action), lb1)
		}
	})
}
