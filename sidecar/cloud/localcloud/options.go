package localcloud

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Options describe the account, the catalogue and the pace of the cloud. Start from Defaults.
type Options struct {
	// Token is the bearer token with full access. It must not be empty.
	Token string
	// Scoped are further tokens and the scopes each holds, in DigitalOcean's notation ("droplet:read"). A request
	// that needs a scope which its token lacks is answered 403.
	Scoped map[string][]string
	// Account is what GET /v2/account shows.
	Account Account
	// DropletLimit is how many droplets the account may have, at least 1. ReservedIPLimit may be 0: none.
	DropletLimit, ReservedIPLimit int
	// Booked are the reserved addresses that the account has from the start, in the first region and held by
	// nobody: at most ReservedIPLimit, all in Addresses.Reserved.
	Booked []netip.Addr
	// Regions, Sizes and Images are the catalogue. At least one of each is needed. The first region is used when a
	// create request names none.
	Regions []Region
	Sizes   []Size
	Images  []Image
	// Addresses says where machines get their addresses from.
	Addresses AddressPlan
	// BootDelay passes between an accepted create and the start of Backend.Boot; zero is none.
	BootDelay time.Duration
	// ActionDelay passes between the start of any other action (power, assign, destroy, ...) and its effect; zero is
	// none. An action is asynchronous even then.
	ActionDelay time.Duration
	// ShutdownWait is how long a shutdown or reboot waits for the machine to stop by itself. Zero means not at all.
	ShutdownWait time.Duration
	// Rate limits the requests of each token.
	Rate RateLimit
	// Nameservers are the names that a new domain's NS records point to, at least one.
	Nameservers []string
	// ZoneTTL is the TTL of a new domain and of records that name none, at least 30 s. It is also how long
	// resolvers may remember that a name does not exist.
	ZoneTTL time.Duration
	// Resolvers are the DNS servers that the metadata service names to machines.
	Resolvers []netip.Addr
	// InternalDomain is the domain of the machines' own names, such as "blog.internal". Empty: not served.
	InternalDomain string
	// Internal answers for x in x.<InternalDomain>, x in lower case; no address means no such name. It is called
	// without any lock held and must be safe for concurrent use. Nil: the private addresses of the machines named x.
	Internal func(x string) []netip.Addr
	// VendorData is what the metadata service hands out as vendor-data.
	VendorData string
	// Seed is where faults with a Chance take their luck from; equal seeds and equal requests give equal faults.
	Seed uint64
}

// Account is the owner of everything.
type Account struct {
	Email, Name, UUID  string
	TeamName, TeamUUID string
}

// Region is a place. Slug must be one of DigitalOcean's, because its API description lists them.
type Region struct {
	Slug, Name string
	// Full means that new droplets cannot be made there.
	Full bool
}

// Size is a kind of machine. Memory is in MiB, Disk in GiB, Transfer in TB, prices in US dollars.
type Size struct {
	Slug, Description         string
	Memory, VCPUs, Disk       int
	Transfer, Monthly, Hourly float64
	// Regions are the slugs where the size is offered; none means everywhere.
	Regions []string
}

// Image is a disk that machines start from.
type Image struct {
	// ID is the number by which a create request names a private image, above zero and below FirstID.
	ID int
	// Name is what the images list shows and what the backend gets as Machine.Image. Names of Options.Images must
	// be unique.
	Name string
	// Slug makes the image public: create requests may then name it by slug. At DigitalOcean only its own images
	// have one; a private image is named by ID and by nothing else, so code that works with a slug here may not
	// work there.
	Slug string
	// Distribution is one of DigitalOcean's names, such as "Debian".
	Distribution string
	// MinDisk is in GiB, SizeGB in gigabytes.
	MinDisk int
	SizeGB  float64
	Created time.Time
}

// AddressPlan are the networks that addresses are taken from. Machine number n gets the address n above the base of
// Public, Private and Anchor; n starts at 2, and 1 is the gateway's.
type AddressPlan struct {
	Public, Private, Anchor, Reserved netip.Prefix
}

// RateLimit bounds the requests of one token. Zero means no limit.
type RateLimit struct {
	PerHour, PerMinute int
}

// FirstID is the lowest number that the server gives to a droplet, action, image, key or record of its own making.
// All come from one counter, so that no number means two things.
const FirstID = 400_000_001

// Defaults returns options for a small account in London with DigitalOcean's own limits. Token is left empty.
func Defaults() Options {
	return Options{
		Account: Account{
			Email: "ops@blog.example", Name: "Operator", UUID: "b6fr89dbf6d9156cace5f3c78dc9851d957381ef",
			TeamName: "Understudy", TeamUUID: "5df3e3004a17e242b7c20ca6c9fc25b701a47ece",
		},
		DropletLimit:    25,
		ReservedIPLimit: 3,
		Regions: []Region{
			{Slug: "lon1", Name: "London 1"}, {Slug: "fra1", Name: "Frankfurt 1"}, {Slug: "ams3", Name: "Amsterdam 3"},
			{Slug: "nyc1", Name: "New York 1"}, {Slug: "nyc3", Name: "New York 3"},
		},
		Sizes: []Size{
			{Slug: "s-1vcpu-512mb-10gb", Description: "Basic", Memory: 512, VCPUs: 1, Disk: 10, Transfer: 0.5,
				Monthly: 4, Hourly: 0.00595, Regions: []string{"ams3", "fra1", "nyc1"}},
			{Slug: "s-1vcpu-1gb", Description: "Basic", Memory: 1024, VCPUs: 1, Disk: 25, Transfer: 1, Monthly: 6, Hourly: 0.00893},
			{Slug: "s-1vcpu-2gb", Description: "Basic", Memory: 2048, VCPUs: 1, Disk: 50, Transfer: 2, Monthly: 12, Hourly: 0.01786},
			{Slug: "s-2vcpu-2gb", Description: "Basic", Memory: 2048, VCPUs: 2, Disk: 60, Transfer: 3, Monthly: 18, Hourly: 0.02679},
			{Slug: "s-2vcpu-4gb", Description: "Basic", Memory: 4096, VCPUs: 2, Disk: 80, Transfer: 4, Monthly: 24, Hourly: 0.03571},
			{Slug: "s-4vcpu-8gb", Description: "Basic", Memory: 8192, VCPUs: 4, Disk: 160, Transfer: 5, Monthly: 48, Hourly: 0.07143},
		},
		Images: []Image{{
			ID: 7555620, Name: "understudy-base", Distribution: "Debian", MinDisk: 10, SizeGB: 0.5,
			Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		}},
		Addresses: AddressPlan{
			Public: netip.MustParsePrefix("198.51.100.0/24"), Private: netip.MustParsePrefix("10.77.0.0/16"),
			Anchor: netip.MustParsePrefix("10.16.0.0/16"), Reserved: netip.MustParsePrefix("203.0.113.0/24"),
		},
		ActionDelay:  500 * time.Millisecond,
		ShutdownWait: 30 * time.Second,
		Rate:         RateLimit{PerHour: 5000, PerMinute: 250},
		Nameservers:  []string{"ns1.digitalocean.com", "ns2.digitalocean.com", "ns3.digitalocean.com"},
		ZoneTTL:      30 * time.Minute,
		Resolvers:    []netip.Addr{netip.MustParseAddr("10.77.0.1")},
	}
}

// Validate reports every problem at once.
func (o Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Token == "" {
		bad("token: must not be empty")
	}
	if o.DropletLimit < 1 {
		bad("droplet limit %d: must be at least 1", o.DropletLimit)
	}
	if o.ReservedIPLimit < 0 {
		bad("reserved ip limit %d: must not be negative", o.ReservedIPLimit)
	}
	if len(o.Booked) > o.ReservedIPLimit {
		bad("%d reserved addresses booked: the limit is %d", len(o.Booked), o.ReservedIPLimit)
	}
	for _, a := range o.Booked {
		if !o.Addresses.Reserved.Contains(a) {
			bad("booked address %v: must be in the reserved network %v", a, o.Addresses.Reserved)
		}
	}
	if o.BootDelay < 0 || o.ActionDelay < 0 || o.ShutdownWait < 0 {
		bad("delays: must not be negative")
	}
	if o.Rate.PerHour < 0 || o.Rate.PerMinute < 0 {
		bad("rate limit: must not be negative")
	}
	if len(o.Nameservers) == 0 {
		bad("nameservers: at least one is needed")
	}
	if o.ZoneTTL < minTTL*time.Second {
		bad("zone ttl %v: must be at least %d s", o.ZoneTTL, minTTL)
	}
	errs = append(errs, o.validateCatalogue(), o.Addresses.validate(o.DropletLimit, o.ReservedIPLimit))
	return errors.Join(errs...)
}

func (o Options) validateCatalogue() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(o.Regions) == 0 || len(o.Sizes) == 0 || len(o.Images) == 0 {
		bad("catalogue: at least one region, one size and one image are needed")
	}
	known := func(slug string) bool {
		return slices.ContainsFunc(o.Regions, func(r Region) bool { return r.Slug == slug })
	}
	for _, z := range o.Sizes {
		if z.Memory < 8 || z.Memory%8 != 0 || z.VCPUs < 1 || z.Disk < 1 {
			bad("size %q: memory must be a multiple of 8 MiB, vcpus and disk at least 1", z.Slug)
		}
		for _, r := range z.Regions {
			if !known(r) {
				bad("size %q: region %q is not in the catalogue", z.Slug, r)
			}
		}
	}
	ids, names := map[int]bool{}, map[string]bool{}
	for _, im := range o.Images {
		if im.ID < 1 || im.ID >= FirstID || ids[im.ID] {
			bad("image %q: id %d must be unique and between 1 and %d", im.Name, im.ID, FirstID-1)
		}
		if im.Name == "" || names[im.Name] {
			bad("image %d: name %q must be unique and not empty", im.ID, im.Name)
		}
		ids[im.ID], names[im.Name] = true, true
	}
	return errors.Join(errs...)
}

// validate checks that each network holds the gateway and as many machines as the account may have, and that they
// do not overlap.
func (p AddressPlan) validate(droplets, reserved int) error {
	var errs []error
	nets := []struct {
		name   string
		prefix netip.Prefix
		need   int
	}{{"public", p.Public, droplets}, {"private", p.Private, droplets}, {"anchor", p.Anchor, droplets}, {"reserved", p.Reserved, reserved}}
	for i, n := range nets {
		if !n.prefix.IsValid() || !n.prefix.Addr().Is4() || n.prefix != n.prefix.Masked() {
			errs = append(errs, fmt.Errorf("%s network %v: must be an IPv4 network", n.name, n.prefix))
			continue
		}
		if room := hosts(n.prefix); n.need > room {
			errs = append(errs, fmt.Errorf("%s network %v: has room for %d, the limit is %d", n.name, n.prefix, room, n.need))
		}
		for _, other := range nets[:i] {
			if other.prefix.IsValid() && other.prefix.Overlaps(n.prefix) {
				errs = append(errs, fmt.Errorf("%s and %s networks overlap", other.name, n.name))
			}
		}
	}
	return errors.Join(errs...)
}

// hosts is how many machines fit into p: all addresses but base, gateway and broadcast.
func hosts(p netip.Prefix) int {
	return max(1<<(32-p.Bits())-3, 0)
}

// host returns the n-th address of p.
func host(p netip.Prefix, n int) netip.Addr {
	b := p.Masked().Addr().As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// netmask returns p's mask in dotted form.
func netmask(p netip.Prefix) string {
	v := ^uint32(0) << (32 - p.Bits())
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}).String()
}

// offered reports whether z can be had in region.
func (z Size) offered(region string) bool {
	return len(z.Regions) == 0 || slices.Contains(z.Regions, region)
}

// region finds a region by slug, or, as DigitalOcean does, by the slug's beginning ("nyc"). The empty slug finds
// the first region that is not full.
func (o Options) region(slug string) (Region, bool) {
	for _, r := range o.Regions {
		if r.Slug == slug {
			return r, true
		}
	}
	for _, r := range o.Regions {
		city := strings.TrimRight(r.Slug, "0123456789")
		if !r.Full && (slug == "" || slug == city) {
			return r, true
		}
	}
	return Region{}, false
}

func (o Options) size(slug string) (Size, bool) {
	for _, z := range o.Sizes {
		if z.Slug == slug {
			return z, true
		}
	}
	return Size{}, false
}
