package localcloud

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const recordsPath = "/v2/domains/blog.example/records"

// zoned makes the domain blog.example.
func (c *cloud) zoned() {
	c.t.Helper()
	c.want(http.StatusCreated, "POST", "/v2/domains", `{"name": "blog.example"}`)
}

// record adds a record and returns it as shown.
func (c *cloud) record(body string) object {
	c.t.Helper()
	return c.want(http.StatusCreated, "POST", recordsPath, body)["domain_record"].(object)
}

func TestRecordsAreShownAsDigitalOceanShowsThem(t *testing.T) {
	for _, tc := range []struct{ body, want string }{
		{`{"type": "A", "name": "www", "data": "192.0.2.1"}`, "www A 192.0.2.1 ttl=1800"},
		{`{"type": "A", "name": "@", "data": "192.0.2.1", "ttl": 30, "priority": 0, "port": 0, "weight": 0, "flags": 0}`, "@ A 192.0.2.1 ttl=30"},
		{`{"type": "A", "name": "", "data": "192.0.2.1", "ttl": 0}`, "@ A 192.0.2.1 ttl=1800"},
		{`{"type": "A", "name": "WWW.Blog.Example.", "data": "192.0.2.1"}`, "www A 192.0.2.1 ttl=1800"},
		{`{"type": "A", "name": "blog.example.", "data": "192.0.2.1"}`, "@ A 192.0.2.1 ttl=1800"},
		{`{"type": "A", "name": "*", "data": "192.0.2.1"}`, "* A 192.0.2.1 ttl=1800"},
		{`{"type": "A", "name": "*.dev", "data": "192.0.2.1"}`, "*.dev A 192.0.2.1 ttl=1800"},
		{`{"type": "AAAA", "name": "www", "data": "2001:DB8::1"}`, "www AAAA 2001:db8::1 ttl=1800"},
		{`{"type": "CNAME", "name": "news", "data": "WWW.blog.example."}`, "news CNAME www.blog.example ttl=1800"},
		{`{"type": "CNAME", "name": "news", "data": "@"}`, "news CNAME @ ttl=1800"},
		{`{"type": "MX", "name": "@", "data": "mail.blog.example.", "priority": 10}`, "@ MX mail.blog.example ttl=1800 priority=10"},
		{`{"type": "MX", "data": "mail.blog.example."}`, "@ MX mail.blog.example ttl=1800 priority=0"},
		{`{"type": "NS", "name": "sub", "data": "ns.other.example."}`, "sub NS ns.other.example ttl=1800"},
		{`{"type": "SRV", "name": "_imaps._tcp", "data": "mail.blog.example.", "priority": 1, "port": 993, "weight": 5}`,
			"_imaps._tcp SRV mail.blog.example ttl=1800 priority=1 port=993 weight=5"},
		{`{"type": "CAA", "name": "@", "data": "ca.example.", "flags": 128, "tag": "issue"}`, "@ CAA ca.example ttl=1800 flags=128 tag=issue"},
		{`{"type": "TXT", "name": "_dmarc", "data": "v=DMARC1; p=none"}`, "_dmarc TXT v=DMARC1; p=none ttl=1800"},
	} {
		inBubble(t, nil, func(c *cloud) {
			c.zoned()
			r := c.record(tc.body)
			got := fmt.Sprintf("%v %v %v ttl=%v", r["name"], r["type"], r["data"], r["ttl"])
			for _, member := range []string{"priority", "port", "weight", "flags", "tag"} {
				if r[member] != nil {
					got += fmt.Sprintf(" %s=%v", member, r[member])
				}
			}
			if got != tc.want {
				t.Errorf("%s:\ngot  %s\nwant %s", tc.body, got, tc.want)
			}
		})
	}
}

func TestRecordsThatAreRefused(t *testing.T) {
	const dot, blank = "Data needs to end with a dot (.)", "Data can't be blank"
	for _, tc := range []struct {
		body    string
		status  int
		message string
	}{
		{``, 400, "error parsing request body"},
		{`{"type": 1}`, 400, "error parsing request body"},
		{`{}`, 422, "Record type is not included in the list"},
		{`{"type": "cname", "name": "a", "data": "b."}`, 422, "Record type is not included in the list"},
		{`{"type": "SOA", "ttl": 60}`, 422, "Record type is not included in the list"},
		{`{"type": "A", "name": "www", "data": "2001:db8::1"}`, 422, "IP address did not match IPv4 format (e.g. 127.0.0.1)"},
		{`{"type": "A", "name": "www", "data": ""}`, 422, "IP address did not match IPv4 format (e.g. 127.0.0.1)"},
		{`{"type": "AAAA", "name": "www", "data": "192.0.2.1"}`, 422, "IP address did not match IPv6 format (e.g. 2001:db8::1)"},
		{`{"type": "AAAA", "name": "www", "data": "fe80::1%eth0"}`, 422, "IP address did not match IPv6 format (e.g. 2001:db8::1)"},
		{`{"type": "CNAME", "name": "news", "data": "www.blog.example"}`, 422, dot},
		{`{"type": "MX", "name": "@", "data": "mail"}`, 422, dot},
		{`{"type": "NS", "data": "ns1.digitalocean.com"}`, 422, dot},
		{`{"type": "CNAME", "name": "news"}`, 422, blank},
		{`{"type": "TXT", "name": "t", "data": ""}`, 422, blank},
		{`{"type": "CNAME", "name": "news", "data": "a b."}`, 422, "Data is not a valid host name"},
		{`{"type": "A", "name": "a..b", "data": "192.0.2.1"}`, 422, "Name is not a valid host name"},
		{`{"type": "A", "name": "a.*", "data": "192.0.2.1"}`, 422, "Name is not a valid host name"},
		{`{"type": "A", "name": "www.other.example.", "data": "192.0.2.1"}`, 422, "Name is outside of the domain"},
		{`{"type": "A", "name": "` + strings.Repeat("a.", 125) + `a", "data": "192.0.2.1"}`, 422, "Name is not a valid host name"},
		{`{"type": "A", "name": "www", "data": "192.0.2.1", "ttl": 29}`, 422, "TTL must be greater than or equal to 30"},
		{`{"type": "A", "name": "www", "data": "192.0.2.1", "ttl": -1}`, 422, "TTL must be greater than or equal to 30"},
		{`{"type": "MX", "data": "mail.blog.example.", "priority": 65536}`, 422, "Priority must be between 0 and 65535"},
		{`{"type": "SRV", "name": "_a._tcp", "data": "b.", "port": -1}`, 422, "Priority, port and weight must be between 0 and 65535"},
		{`{"type": "CAA", "data": "ca.example.", "tag": "all"}`, 422, "Flags must be between 0 and 255, and tag one of issue, issuewild and iodef"},
		{`{"type": "CNAME", "name": "@", "data": "www.blog.example."}`, 422, "CNAME records cannot share a name with other records"},
		{`{"type": "A", "name": "taken", "data": "192.0.2.1"}`, 422, "CNAME records cannot share a name with other records"},
	} {
		inBubble(t, nil, func(c *cloud) {
			c.zoned()
			c.record(`{"type": "CNAME", "name": "taken", "data": "@"}`)
			c.refused(tc.status, tc.message, "POST", recordsPath, tc.body)
			if got := len(c.want(http.StatusOK, "GET", recordsPath, "")["domain_records"].([]any)); got != 5 {
				t.Errorf("%s: got %d records after the refusal, want 5", tc.body, got)
			}
		})
	}
}

func TestRecordsCanBeDoubledAndChangedOneByOne(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.zoned()
		first := c.record(`{"type": "A", "name": "www", "data": "192.0.2.1", "ttl": 60}`)
		second := c.record(`{"type": "A", "name": "www", "data": "192.0.2.1", "ttl": 60}`)
		if first["id"] == second["id"] {
			t.Error("two records have one id")
		}
		path := fmt.Sprintf("%s/%d", recordsPath, whole(first["id"]))
		for _, method := range []string{"PUT", "PATCH"} {
			got := c.want(http.StatusOK, method, path, `{"type": "A", "data": "192.0.2.9"}`)["domain_record"].(object)
			if got["name"] != "www" || got["data"] != "192.0.2.9" || whole(got["ttl"]) != 60 || got["id"] != first["id"] {
				t.Errorf("%s: got %v, want only the data changed", method, got)
			}
		}
		c.want(http.StatusNoContent, "DELETE", path, "")
		c.refused(404, errNotFound.message, "DELETE", path, "")
		c.refused(404, errNotFound.message, "PUT", path, `{"type": "A", "data": "192.0.2.9"}`)
		if got := len(c.want(http.StatusOK, "GET", recordsPath+"?name=www.blog.example", "")["domain_records"].([]any)); got != 1 {
			t.Errorf("got %d records, want the other one left", got)
		}
	})
}

func TestRecordThatPointsToAHostNeedsItsDataAgain(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.zoned()
		r := c.record(`{"type": "CNAME", "name": "news", "data": "www.blog.example."}`)
		path := fmt.Sprintf("%s/%d", recordsPath, whole(r["id"]))
		c.refused(422, "Data needs to end with a dot (.)", "PUT", path, `{"type": "CNAME", "ttl": 60}`)
		// What was read cannot be sent back either.
		c.refused(422, "Data needs to end with a dot (.)", "PUT", path, fmt.Sprintf(`{"type": "CNAME", "data": %q}`, r["data"]))
		c.want(http.StatusOK, "PUT", path, `{"type": "CNAME", "data": "www.blog.example.", "ttl": 60}`)
	})
}

func TestSOAStaysAndOnlyItsTTLChanges(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.zoned()
		soa := c.want(http.StatusOK, "GET", recordsPath+"?type=SOA", "")["domain_records"].([]any)[0].(object)
		path := fmt.Sprintf("%s/%d", recordsPath, whole(soa["id"]))
		c.refused(422, "The SOA record of a domain cannot be deleted.", "DELETE", path, "")
		c.refused(422, "TTL must be greater than or equal to 30", "PATCH", path, `{"type": "SOA", "ttl": 5}`)
		c.refused(422, "The type of a SOA record cannot be changed.", "PATCH", path, `{"type": "A", "data": "192.0.2.1"}`)
		c.want(http.StatusOK, "PATCH", path, `{"type": "SOA", "ttl": 600}`)
		if got := whole(c.want(http.StatusOK, "GET", "/v2/domains/blog.example", "")["domain"].(object)["ttl"]); got != 600 {
			t.Errorf("got ttl %d, want 600", got)
		}
	})
}

func TestDomainsThatAreRefused(t *testing.T) {
	inBubble(t, nil, func(c *cloud) {
		c.zoned()
		for body, message := range map[string]string{
			`{"name": "Blog.Example."}`:                         "domain 'blog.example': name already exists",
			`{"name": ""}`:                                      "Domain name is invalid",
			`{"name": "example"}`:                               "Domain name is invalid",
			`{"name": "a b.example"}`:                           "Domain name is invalid",
			`{"name": "new.example", "ip_address": "nonsense"}`: "IP address is invalid",
		} {
			c.refused(422, message, "POST", "/v2/domains", body)
		}
		c.refused(404, errNotFound.message, "GET", "/v2/domains/other.example", "")
		c.refused(404, errNotFound.message, "POST", "/v2/domains/other.example/records", `{"type": "A", "name": "www", "data": "192.0.2.1"}`)
	})
}
