package localcloud

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDropletIsNewThenHasAddressesThenIsActive(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.backend.BootTime = 5 * time.Second
		id, action := c.create("web1")
		addresses := func() int { return len(c.droplet(id)["networks"].(object)["v4"].([]any)) }
		c.pass(9 * time.Second)
		if d := c.droplet(id); d["status"] != "new" || d["locked"] != true || addresses() != 0 || c.backend.Running(id) {
			t.Errorf("at 9 s: got %v, want new, locked, without addresses or power", d)
		}
		c.pass(2 * time.Second) // Boot began at 10 s.
		if d := c.droplet(id); d["status"] != "new" || addresses() != 2 {
			t.Errorf("at 11 s: got %v, want new with two addresses", d)
		}
		c.pass(5 * time.Second) // Boot ended at 15 s.
		if d := c.droplet(id); d["status"] != "active" || d["locked"] != false {
			t.Errorf("at 16 s: got %v, want active and free", d)
		}
		if got := c.actionStatus(action); got != "completed" {
			t.Errorf("create action: got %s, want completed", got)
		}
		ms := c.s.Machines()
		want := Machine{
			ID: id, Name: "web1", Image: "understudy-base", Region: "lon1", Size: "s-1vcpu-1gb", Tags: []string{"blog"},
			Public: netip.MustParseAddr("198.51.100.2"), Private: netip.MustParseAddr("10.77.0.2"), Anchor: netip.MustParseAddr("10.16.0.2"),
			Created: ms[0].Created,
		}
		if len(ms) != 1 || !reflect.DeepEqual(ms[0].Machine, want) || ms[0].Status != "active" {
			t.Errorf("got machines %+v, want %+v", ms, want)
		}
	})
}

func TestMachineThatCannotBootLeavesNothing(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.backend.FailNext("Boot", errors.New("no space left on device"))
		id, action := c.create("web1")
		c.pass(time.Minute)
		c.want(http.StatusNotFound, "GET", fmt.Sprintf("/v2/droplets/%d", id), "")
		if got := c.actionStatus(action); got != "errored" {
			t.Errorf("create action: got %s, want errored", got)
		}
		if len(c.backend.Disks()) != 0 || !strings.Contains(c.log.String(), "no space left on device") {
			t.Errorf("got disks %v, log %s, want no disk and the cause in the log", c.backend.Disks(), c.log)
		}
	})
}

func TestDropletCanBeReadUntilItsMachineIsGone(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		id := c.booted("web1")
		c.backend.PowerOffTime = 30 * time.Second
		c.want(http.StatusNoContent, "DELETE", fmt.Sprintf("/v2/droplets/%d", id), "")
		c.pass(20 * time.Second)
		if d := c.droplet(id); d["status"] != "active" || d["locked"] != true {
			t.Errorf("while it is erased: got %v, want active and locked, which it is", d)
		}
		c.pass(20 * time.Second)
		c.want(http.StatusNotFound, "GET", fmt.Sprintf("/v2/droplets/%d", id), "")
		if c.backend.Running(id) {
			t.Error("404, and the machine runs")
		}
	})
}

func TestMachineThatCannotBeErasedStays(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		id := c.booted("web1")
		c.backend.FailNext("Erase", errors.New("device busy"))
		c.want(http.StatusNoContent, "DELETE", fmt.Sprintf("/v2/droplets/%d", id), "")
		c.pass(time.Minute)
		if d := c.droplet(id); d["status"] != "active" || d["locked"] != false {
			t.Errorf("got %v, want it as before", d)
		}
		c.want(http.StatusNoContent, "DELETE", fmt.Sprintf("/v2/droplets/%d", id), "")
		c.pass(time.Minute)
		c.want(http.StatusNotFound, "GET", fmt.Sprintf("/v2/droplets/%d", id), "")
	})
}

func TestStatusIsThePowerTheMachineHas(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		id := c.booted("web1")
		c.backend.Kill(id)
		if got := c.droplet(id)["status"]; got != "off" {
			t.Errorf("a machine that died by itself: got %v, want off", got)
		}
		c.act(id, `{"type": "power_on"}`)
		c.pass(time.Minute)
		if got := c.droplet(id)["status"]; got != "active" {
			t.Errorf("powered on: got %v, want active", got)
		}
	})
}

func TestShutdownIsOnlyARequest(t *testing.T) {
	inBubble(t, func(o *Options) { o.ShutdownWait = 10 * time.Second }, func(c *cloud) {
		id := c.booted("web1")
		c.backend.Stubborn = true
		action := c.act(id, `{"type": "shutdown"}`)
		c.pass(time.Minute)
		if got := c.actionStatus(action); got != "completed" || c.droplet(id)["status"] != "active" {
			t.Errorf("got action %s, droplet %v, want completed and still active", got, c.droplet(id)["status"])
		}
		c.backend.Stubborn = false
		c.act(id, `{"type": "shutdown"}`)
		c.pass(time.Minute)
		if got := c.droplet(id)["status"]; got != "off" {
			t.Errorf("got %v, want off", got)
		}
	})
}

func TestActionTakesItsTimeAndLocksTheDroplet(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		id := c.booted("web1")
		path := fmt.Sprintf("/v2/droplets/%d/actions", id)
		action := c.act(id, `{"type": "power_off"}`)
		if got := c.actionStatus(action); got != "in-progress" || c.droplet(id)["locked"] != true {
			t.Errorf("got %s, want in-progress and the droplet locked", got)
		}
		c.refused(422, "Droplet already has a pending event.", "POST", path, `{"type": "power_on"}`)
		c.pass(3 * time.Second)
		if got := c.actionStatus(action); got != "completed" || c.droplet(id)["status"] != "off" {
			t.Errorf("after 3 s: got %s, %v, want completed, off", got, c.droplet(id)["status"])
		}
		c.refused(422, "Droplet is already powered off", "POST", path, `{"type": "power_off"}`)
		c.refused(422, "Droplet is already powered off", "POST", path, `{"type": "shutdown"}`)
	})
}

func TestActionsThatAreRefused(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		path := fmt.Sprintf("/v2/droplets/%d/actions", c.booted("web1"))
		c.refused(422, "Droplet is already powered on", "POST", path, `{"type": "power_on"}`)
		c.refused(422, "Droplet is currently on. Please power it off to run this event.", "POST", path, `{"type": "resize", "size": "s-2vcpu-4gb"}`)
		c.refused(422, "This local cloud does not offer the action password_reset.", "POST", path, `{"type": "password_reset"}`)
		c.refused(422, "Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)", "POST", path, `{"type": "rename", "name": "a_b"}`)
		c.refused(422, "You specified an invalid type for the action.", "POST", path, `{"type": "explode"}`)
		c.refused(400, "error parsing request body", "POST", path, `{"type": 7}`)
		c.refused(404, errNotFound.message, "POST", "/v2/droplets/1/actions", `{"type": "power_on"}`)
	})
}

func TestCreatesThatAreRefused(t *testing.T) {
	long := strings.Repeat("x", maxUserData+1)
	for _, tc := range []struct {
		name, body string
		status     int
		message    string
	}{
		{"no body", ``, 400, "error parsing request body"},
		{"not an object", `[1]`, 400, "error parsing request body"},
		{"cut short", `{"name": "a"`, 400, "error parsing request body"},
		{"wrong type", `{"name": "a", "tags": "b"}`, 400, "error parsing request body"},
		{"no name", `{"size": "s-1vcpu-1gb", "image": 7555620}`, 422, "Name can't be blank"},
		{"empty names", `{"names": [], "size": "s-1vcpu-1gb", "image": 7555620}`, 422, "Name can't be blank"},
		{"both", `{"name": "a", "names": ["b"], "size": "s-1vcpu-1gb", "image": 7555620}`, 422, "Only one of name and names can be given."},
		{"eleven", `{"names": ["a","b","c","d","e","f","g","h","i","j","k"], "size": "s-1vcpu-1gb", "image": 7555620}`, 422, "You can only create 10 droplets at once."},
		{"underscore", `{"name": "a_b", "size": "s-1vcpu-1gb", "image": 7555620}`, 422, "Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)"},
		{"trailing dash", `{"name": "a-", "size": "s-1vcpu-1gb", "image": 7555620}`, 422, "Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)"},
		{"no size", `{"name": "a", "image": 7555620}`, 422, "You specified an invalid size for Droplet creation."},
		{"no image", `{"name": "a", "size": "s-1vcpu-1gb"}`, 422, "You specified an invalid image for Droplet creation."},
		{"image by name", `{"name": "a", "size": "s-1vcpu-1gb", "image": "understudy-base"}`, 422, "You specified an invalid image for Droplet creation."},
		{"region", `{"name": "a", "size": "s-1vcpu-1gb", "image": 7555620, "region": "mars1"}`, 422, "You specified an invalid region for Droplet creation."},
		{"size not there", `{"name": "a", "size": "s-1vcpu-512mb-10gb", "image": 7555620, "region": "lon1"}`, 422, "Size is not available in this region."},
		{"region full", `{"name": "a", "size": "s-1vcpu-1gb", "image": 7555620, "region": "nyc3"}`, 422, "Size is not available in this region."},
		{"keys", `{"name": "a", "size": "s-1vcpu-1gb", "image": 7555620, "ssh_keys": [5, "aa:bb"]}`, 422, "5, aa:bb are invalid key identifiers for Droplet creation."},
		{"user data", `{"name": "a", "size": "s-1vcpu-1gb", "image": 7555620, "user_data": "` + long + `"}`, 422, "User data is too long (maximum is 65536 bytes)"},
		{"vpc", `{"name": "a", "size": "s-1vcpu-1gb", "image": 7555620, "vpc_uuid": "x"}`, 422, "Failed to resolve VPC"},
		{"tag", `{"name": "a", "size": "s-1vcpu-1gb", "image": 7555620, "tags": ["a b"]}`, 422, `tag-name "a b" contains invalid characters`},
		{"ipv6", `{"name": "a", "size": "s-1vcpu-1gb", "image": 7555620, "ipv6": true}`, 422, "This local cloud has no IPv6."},
		{"volumes", `{"name": "a", "size": "s-1vcpu-1gb", "image": 7555620, "volumes": ["v"]}`, 422, "This local cloud has no volumes."},
		{"private only", `{"name": "a", "size": "s-1vcpu-1gb", "image": 7555620, "public_networking": false}`, 422, "This local cloud has no droplets without public networking."},
		{"too large", `{"name": "` + strings.Repeat("x", maxBody) + `"}`, 413, "The request body is too large."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(o *Options) { o.Regions[4].Full = true }, func(c *cloud) {
				c.refused(tc.status, tc.message, "POST", "/v2/droplets", tc.body)
				if got := len(c.s.Machines()); got != 0 {
					t.Errorf("got %d machines after a refusal, want none", got)
				}
				if tc.name == "image by name" && !strings.Contains(c.log.String(), "only its id is taken") {
					t.Errorf("got log %q, want a hint why", c.log)
				}
			})
		})
	}
}

func TestCreateAcceptsWhatDigitalOceanAccepts(t *testing.T) {
	for _, tc := range []struct{ name, body, region string }{
		{"null lists", `{"name": "a", "region": "lon1", "size": "s-1vcpu-1gb", "image": 7555620, "ssh_keys": null, "tags": null}`, "lon1"},
		{"image id as text", `{"name": "a", "region": "lon1", "size": "s-1vcpu-1gb", "image": "7555620"}`, "lon1"},
		{"any region", `{"name": "a", "size": "s-1vcpu-1gb", "image": 7555620}`, "lon1"},
		{"city", `{"name": "a", "region": "nyc", "size": "s-1vcpu-1gb", "image": 7555620}`, "nyc1"},
		{"unknown member", `{"name": "a", "region": "lon1", "size": "s-1vcpu-1gb", "image": 7555620, "colour": "red"}`, "lon1"},
		{"user data of 64 KiB", `{"name": "a", "region": "lon1", "size": "s-1vcpu-1gb", "image": 7555620, "user_data": "` + strings.Repeat("x", maxUserData) + `"}`, "lon1"},
		{"full name", `{"name": "Mail1.blog.example", "region": "lon1", "size": "s-1vcpu-1gb", "image": 7555620}`, "lon1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, nil, func(c *cloud) {
				o := c.want(http.StatusAccepted, "POST", "/v2/droplets", tc.body)
				if got := o["droplet"].(object)["region"].(object)["slug"]; got != tc.region {
					t.Errorf("got region %v, want %s", got, tc.region)
				}
			})
		})
	}
}

func TestListsOfDroplets(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		var ids []int
		for i := range 25 {
			ids = append(ids, c.booted(fmt.Sprintf("web%d", i%5)))
		}
		for _, tc := range []struct {
			query string
			want  []int
		}{
			{"", ids[:20]},
			{"?page=2", ids[20:]},
			{"?page=3", []int{}},
			{"?per_page=200", ids},
			{"?per_page=9999", ids},
			{"?per_page=0&page=0", ids[:20]},
			{"?per_page=7&page=4", ids[21:]},
			{"?name=WEB0", []int{ids[0], ids[5], ids[10], ids[15], ids[20]}},
			{"?name=web", []int{}},
			{"?tag_name=Blog&per_page=3", ids[:3]},
			{"?tag_name=other", []int{}},
			{"?type=gpus", []int{}},
			{"?type=droplets", ids[:20]},
		} {
			if got := c.listed(tc.query); !slices.Equal(got, tc.want) {
				t.Errorf("%s: got %v, want %v", tc.query, got, tc.want)
			}
		}
		o := c.want(http.StatusOK, "GET", "/v2/droplets?per_page=10&page=2&tag_name=blog", "")
		pages := o["links"].(object)["pages"].(object)
		if pages["next"] != "http://example.com/v2/droplets?page=3&per_page=10&tag_name=blog" || len(pages) != 4 || whole(o["meta"].(object)["total"]) != 25 {
			t.Errorf("got links %v, meta %v, want first, prev, next, last and a total of 25", pages, o["meta"])
		}
		c.want(http.StatusBadRequest, "GET", "/v2/droplets?tag_name=blog&name=web1", "")
	})
}

func TestMachineNumbersGoRoundBeforeTheyComeAgain(t *testing.T) {
	inBubble(t, func(o *Options) {
		o.DropletLimit = 4
		o.Addresses.Public = netip.MustParsePrefix("198.51.100.0/29") // Room for five.
	}, func(c *cloud) {
		var seen []string
		for range 7 {
			id := c.booted("web1")
			seen = append(seen, c.s.Machines()[0].Public.String()[len("198.51.100."):])
			c.want(http.StatusNoContent, "DELETE", fmt.Sprintf("/v2/droplets/%d", id), "")
			c.pass(time.Minute)
		}
		if got := strings.Join(seen, " "); got != "2 3 4 5 6 2 3" {
			t.Errorf("got addresses %s, want each used once before the first comes again", got)
		}
	})
}

func TestImageOfAMachineBootsThatMachinesDisk(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		id := c.booted("web1")
		action := c.act(id, `{"type": "snapshot", "name": "golden"}`)
		c.pass(time.Minute)
		images := c.want(http.StatusOK, "GET", "/v2/images?private=true", "")["images"].([]any)
		golden := images[len(images)-1].(object)
		if c.actionStatus(action) != "completed" || golden["name"] != "golden" {
			t.Fatalf("got images %v, want golden among them", images)
		}
		o := c.want(http.StatusAccepted, "POST", "/v2/droplets", fmt.Sprintf(`{"name": "web2", "region": "lon1", "size": "s-1vcpu-1gb", "image": %d}`, whole(golden["id"])))
		ms := c.s.Machines()
		if got := ms[1]; got.ID != whole(o["droplet"].(object)["id"]) || got.Image != fmt.Sprintf("image-%d", whole(golden["id"])) {
			t.Errorf("got %+v, want a machine of the disk that the backend made", got)
		}
		c.refused(422, "The image you specified is not available in the selected region for Droplet creation.", "POST", "/v2/droplets",
			fmt.Sprintf(`{"name": "web2", "region": "fra1", "size": "s-1vcpu-1gb", "image": %d}`, whole(golden["id"])))
	})
}

func TestDestroyByTagIsRefusedLoudly(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		id := c.booted("web1")
		c.refused(403, errForbidden.message, "DELETE", "/v2/droplets?tag_name=blog", "")
		c.refused(403, errForbidden.message, "POST", "/v2/droplets/actions?tag_name=blog", `{"type": "power_off"}`)
		c.pass(time.Minute)
		if got := c.droplet(id)["status"]; got != "active" || strings.Count(c.log.String(), "level=ERROR") != 2 {
			t.Errorf("got status %v, log %s, want active and two errors", got, c.log)
		}
	})
}
