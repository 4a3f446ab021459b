package localcloud

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestDefaultsNeedOnlyAToken(t *testing.T) {
	o := Defaults()
	if err := o.Validate(); err == nil || err.Error() != "token: must not be empty" {
		t.Errorf("got %v, want only the token to be missing", err)
	}
	o.Token = "t"
	if err := o.Validate(); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestEveryProblemWithOptionsIsReportedAtOnce(t *testing.T) {
	o := Options{
		ReservedIPLimit: -1, ActionDelay: -1, Rate: RateLimit{PerHour: -1}, ZoneTTL: time.Second,
		Sizes:  []Size{{Slug: "odd", Memory: 9, VCPUs: 1, Disk: 1}, {Slug: "far", Memory: 8, VCPUs: 1, Disk: 1, Regions: []string{"mars1"}}},
		Images: []Image{{ID: 1, Name: "a"}, {ID: 1, Name: "a"}, {ID: FirstID, Name: "b"}},
		Addresses: AddressPlan{
			Public: netip.MustParsePrefix("10.0.0.1/24"), Private: netip.MustParsePrefix("10.1.0.0/16"),
			Anchor: netip.MustParsePrefix("10.1.2.0/24"), Reserved: netip.MustParsePrefix("2001:db8::/64"),
		},
	}
	err := o.Validate()
	if err == nil {
		t.Fatal("got nil, want problems")
	}
	for _, want := range []string{
		"token: must not be empty", "droplet limit 0", "reserved ip limit -1", "delays: must not be negative", "rate limit: must not be negative",
		"nameservers: at least one", "zone ttl 1s", "at least one region", `size "odd": memory`, `size "far": region "mars1"`,
		"id 1 must be unique", `name "a" must be unique`, "id 400000001 must be unique and between", "public network 10.0.0.1/24: must be",
		"private and anchor networks overlap", "reserved network 2001:db8::/64: must be",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among the problems:\n%v", want, err)
		}
	}
	o = Defaults()
	o.Token, o.DropletLimit = "t", 1000
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "public network 198.51.100.0/24: has room for 253, the limit is 1000") {
		t.Errorf("got %v, want the public network to be too small", err)
	}
}

func TestNewPanicsOnOptionsThatWereNotValidated(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("got no panic")
		}
	}()
	New(nil, &Memory{}, Options{})
}
