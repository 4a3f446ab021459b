package localcloud

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// meta asks the metadata service from the given source address.
func (c *cloud) meta(source, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.RemoteAddr = source + ":40000"
	w := httptest.NewRecorder()
	c.s.Metadata().ServeHTTP(w, r)
	return w
}

func TestMetadataTellsAMachineAboutItself(t *testing.T) {
	inBubble(t, func(o *Options) { o.VendorData = "#vendor" }, func(c *cloud) {
		c.want(http.StatusCreated, "POST", "/v2/account/keys", `{"name": "ops", "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ops"}`)
		keys := c.want(http.StatusOK, "GET", "/v2/account/keys", "")["ssh_keys"].([]any)
		o := c.want(http.StatusAccepted, "POST", "/v2/droplets", fmt.Sprintf(
			`{"name": "lb1", "region": "lon1", "size": "s-1vcpu-1gb", "image": 7555620, "tags": ["blog", "alpha"],
			"user_data": "#understudy-ticket v1\n{}\n", "ssh_keys": [%d]}`, whole(keys[0].(object)["id"])))
		id := whole(o["droplet"].(object)["id"])
		c.pass(time.Minute)
		ip := c.reserve()
		const root = "/metadata/v1/"
		index := "id\nhostname\nuser-data\nvendor-data\npublic-keys\nregion\ninterfaces/\ndns/\nfloating_ip/\nreserved_ip/\ntags/\nfeatures/"
		want := map[string]string{
			"":                                 index,
			"id":                               fmt.Sprint(id),
			"hostname":                         "lb1",
			"region":                           "lon1",
			"user-data":                        "#understudy-ticket v1\n{}\n",
			"vendor-data":                      "#vendor",
			"public-keys":                      "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ops",
			"interfaces/":                      "public/\nprivate/",
			"interfaces/public/":               "0/",
			"interfaces/public/0/":             "mac\ntype\nipv4/\nanchor_ipv4/",
			"interfaces/public/0/type":         "public",
			"interfaces/public/0/ipv4/":        "address\nnetmask\ngateway",
			"interfaces/public/0/ipv4/address": "198.51.100.2",
			"interfaces/public/0/ipv4/netmask": "255.255.255.0",
			"interfaces/public/0/anchor_ipv4/address": "10.16.0.2",
			"interfaces/private/0/ipv4/address":       "10.77.0.2",
			"interfaces/private/0/ipv4/netmask":       "255.255.0.0",
			"interfaces/private/0/ipv4/gateway":       "10.77.0.1",
			"dns/":                                    "nameservers",
			"dns/nameservers":                         "10.77.0.1",
			"floating_ip/":                            "ipv4/",
			"floating_ip/ipv4/":                       "active",
			"floating_ip/ipv4/active":                 "false",
			"reserved_ip/ipv4/active":                 "false",
			"tags/":                                   "alpha\nblog",
		}
		for _, source := range []string{"10.77.0.2", "10.16.0.2", "198.51.100.2"} {
			for path, value := range want {
				w := c.meta(source, root+path)
				if w.Code != http.StatusOK || w.Body.String() != value || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
					t.Errorf("%s from %s: got %d %q, want 200 %q", path, source, w.Code, w.Body, value)
				}
			}
		}
		if w := c.meta("10.77.0.2", root+"reserved_ip/ipv4/ip_address"); w.Code != http.StatusNotFound {
			t.Errorf("address while none is held: got %d %q, want 404", w.Code, w.Body)
		}
		c.assign(ip, id)
		c.pass(time.Minute)
		for path, value := range map[string]string{
			"reserved_ip/ipv4/": "active\nip_address", "reserved_ip/ipv4/active": "true", "reserved_ip/ipv4/ip_address": ip,
			"floating_ip/ipv4/active": "true", "floating_ip/ipv4/ip_address": ip,
		} {
			if w := c.meta("10.77.0.2", root+path); w.Body.String() != value {
				t.Errorf("%s: got %q, want %q", path, w.Body, value)
			}
		}
	})
}

func TestMetadataAsOneDocument(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		id := c.booted("web1")
		var doc object
		w := c.meta("10.77.0.2", "/metadata/v1.json")
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatalf("got %q: %v", w.Body, err)
		}
		public := doc["interfaces"].(object)["public"].([]any)[0].(object)
		if whole(doc["droplet_id"]) != id || doc["hostname"] != "web1" || public["anchor_ipv4"].(object)["ip_address"] != "10.16.0.2" ||
			doc["reserved_ip"].(object)["ipv4"].(object)["active"] != false {
			t.Errorf("got %v, want the machine's own", doc)
		}
		if _, has := doc["user_data"]; has {
			t.Error("user_data is there although none was given")
		}
	})
}

func TestMetadataTellsStrangersNothing(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		id := c.booted("web1")
		for _, source := range []string{"10.77.0.3", "203.0.113.7", "[::1]"} {
			for _, path := range []string{"/metadata/v1/", "/metadata/v1/user-data", "/metadata/v1.json"} {
				if w := c.meta(source, path); w.Code != http.StatusNotFound || strings.Contains(w.Body.String(), "web1") {
					t.Errorf("%s from %s: got %d %q, want 404", path, source, w.Code, w.Body)
				}
			}
		}
		for path, want := range map[string]int{
			"/metadata/v1": 301, "/metadata/v1/interfaces": 301, "/metadata/v1/tags": 301,
			"/metadata/v1/nothing": 404, "/metadata/v2/": 404, "/": 404, "/metadata/v1/id/": 404, "/metadata/v1/interfaces/public/1/": 404,
		} {
			if w := c.meta("10.77.0.2", path); w.Code != want {
				t.Errorf("%s: got %d, want %d", path, w.Code, want)
			}
		}
		c.want(http.StatusNoContent, "DELETE", fmt.Sprintf("/v2/droplets/%d", id), "")
		c.pass(time.Minute)
		if w := c.meta("10.77.0.2", "/metadata/v1/id"); w.Code != http.StatusNotFound {
			t.Errorf("after the machine went: got %d, want 404", w.Code)
		}
	})
}
