package localcloud

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// bare hides what Memory can do besides the duties of a Backend.
type bare struct{ Backend }

func TestBackendWithoutExtrasPowersOffAndMakesNoImages(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.s.backend = bare{c.backend}
		id := c.booted("web1")
		image := c.act(id, `{"type": "snapshot", "name": "golden"}`)
		c.pass(time.Minute)
		if got := c.actionStatus(image); got != "errored" || !strings.Contains(c.log.String(), "cannot make images") {
			t.Errorf("got %s, want errored and why in the log: an image that is not of this machine would be a lie", got)
		}
		c.act(id, `{"type": "shutdown"}`)
		c.pass(time.Minute)
		if got := c.droplet(id)["status"]; got != "off" {
			t.Errorf("got %v, want off", got)
		}
	})
}

func TestSmallRefusals(t *testing.T) {
	inBubble(t, func(o *Options) {
		o.Images = append(o.Images, Image{ID: 2, Name: "debian", Slug: "debian-13-x64", Distribution: "Debian", MinDisk: 30})
	}, func(c *cloud) {
		id := c.booted("web1")
		c.act(id, `{"type": "power_off"}`)
		c.pass(time.Minute)
		actions := fmt.Sprintf("/v2/droplets/%d/actions", id)
		for _, tc := range []struct {
			status                      int
			message, method, path, body string
		}{
			{422, "You specified an invalid size.", "POST", actions, `{"type": "resize", "size": "huge"}`},
			{422, "Size is not available in this region.", "POST", actions, `{"type": "resize", "size": "s-1vcpu-512mb-10gb"}`},
			{422, "The droplet is already set to this size.", "POST", actions, `{"type": "resize", "size": "s-1vcpu-1gb"}`},
			{422, "You specified an invalid image.", "POST", actions, `{"type": "rebuild", "image": "nothing"}`},
			{422, "Droplet is currently off. Please power it on to run this event.", "POST", actions, `{"type": "reboot"}`},
			{422, "The image you specified is too large for the selected size.", "POST", "/v2/droplets", `{"name": "a", "size": "s-1vcpu-1gb", "image": "debian-13-x64"}`},
			{403, errForbidden.message, "PUT", "/v2/images/2", `{"name": "mine"}`},
			{403, errForbidden.message, "DELETE", "/v2/images/debian-13-x64", ""},
			{422, "Name can't be blank", "PUT", "/v2/images/7555620", `{"name": " "}`},
			{404, errNotFound.message, "GET", "/v2/images/understudy-base", ""},
			{422, "This local cloud has no backups that could be converted.", "POST", "/v2/images/7555620/actions", `{"type": "convert"}`},
			{422, "You specified an invalid region.", "POST", "/v2/images/7555620/actions", `{"type": "transfer", "region": "nyc"}`},
			{404, errNotFound.message, "GET", fmt.Sprintf("/v2/images/7555620/actions/%d", FirstID), ""},
			{400, "the resource is not a snapshot", "DELETE", "/v2/snapshots/2", ""},
			{404, errNotFound.message, "DELETE", "/v2/snapshots/nothing", ""},
			{422, "Name can't be blank", "POST", "/v2/account/keys", `{"name": "", "public_key": "x"}`},
			{422, "Key invalid, key should be of the format `type key [comment]`", "POST", "/v2/account/keys", `{"name": "a", "public_key": "x"}`},
			{404, errNotFound.message, "PUT", "/v2/account/keys/7", `{"name": "a"}`},
			{404, errNotFound.message, "GET", "/v2/tags/nothing", ""},
			{404, errNotFound.message, "GET", "/v2/tags/BLOG", ""}, // The URL needs the canonical spelling.
			{404, errNotFound.message, "POST", "/v2/tags/blog/resources", fmt.Sprintf(`{"resources": [{"resource_id": "%d", "resource_type": "volume"}]}`, id)},
			{404, errNotFound.message, "GET", "/v2/vpcs/nothing", ""},
			{404, errNotFound.message, "GET", "/v2/actions/0", ""},
			{404, errNotFound.message, "GET", "/v2/droplets/nonsense", ""},
		} {
			c.refused(tc.status, tc.message, tc.method, tc.path, tc.body)
		}
		if d := c.droplet(id); d["locked"] != false || d["size_slug"] != "s-1vcpu-1gb" {
			t.Errorf("got %v, want the droplet untouched by what was refused", d)
		}
	})
}

func TestTaggingIsAllOrNothing(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		id := c.booted("web1")
		c.want(http.StatusCreated, "POST", "/v2/tags", `{"name": "quarantine"}`)
		c.refused(404, errNotFound.message, "POST", "/v2/tags/quarantine/resources", fmt.Sprintf(
			`{"resources": [{"resource_id": "%d", "resource_type": "droplet"}, {"resource_id": "1", "resource_type": "droplet"}]}`, id))
		if got := len(c.listed("?tag_name=quarantine")); got != 0 {
			t.Errorf("got %d tagged droplets, want none", got)
		}
		c.want(http.StatusNoContent, "POST", "/v2/tags/quarantine/resources", fmt.Sprintf(`{"resources": [{"resource_id": %d, "resource_type": "droplet"}]}`, id))
		if got := c.s.Machines()[0].Tags; strings.Join(got, " ") != "blog quarantine" {
			t.Errorf("got tags %v, want both, sorted", got)
		}
		c.want(http.StatusNoContent, "DELETE", "/v2/tags/quarantine", "")
		if got := c.s.Machines()[0].Tags; strings.Join(got, " ") != "blog" {
			t.Errorf("got tags %v, want the deleted one gone", got)
		}
	})
}

func TestBookedAddressesAreThereFromTheStart(t *testing.T) {
	inBubble(t, func(o *Options) { o.Booked = append(o.Booked, host(o.Addresses.Reserved, 10)) }, func(c *cloud) {
		lb1 := c.booted("lb1")
		c.assign("203.0.113.10", lb1)
		c.pass(time.Minute)
		if got := c.holder("203.0.113.10"); got != lb1 {
			t.Errorf("got holder %d, want %d", got, lb1)
		}
		if got := c.reserve(); got != "203.0.113.1" {
			t.Errorf("got %s, want the first free address", got)
		}
	})
}
