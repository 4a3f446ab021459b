// Package dns publishes names: it makes a zone say, for exactly the names that the cluster owns, what the cluster wants. It
// knows two kinds of zones. One takes updates by RFC 2136 with TSIG (RFC 8945) and is guarded: a TXT record in the zone
// carries the epoch of its newest writer, stands in the prerequisite of every update, and so lets a late writer lose. The
// other is a provider's records API, which has no such condition: there writers converge instead of excluding each other.
//
// What it promises, for both: it touches only addresses and mail exchangers of the names in Change.Own, and of these only the
// kinds that Change.Want has for the name; it adds before it removes, and never leaves a name empty that was not; a name of
// which nothing is wanted stays as it is; and an error is an error, never an empty zone.
//
// A zone that another program also writes under the same names is not for this package.
package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	mdns "github.com/miekg/dns"

	"understudy/sidecar/cluster"
)

// DefaultTTL is how long resolvers may remember what we publish.
const DefaultTTL = time.Minute

// Bounds of a TTL. DigitalOcean takes none below 30 s; above a day a failover would be over long before it is noticed.
const (
	minTTL = 30 * time.Second
	maxTTL = 24 * time.Hour
)

// Zone is a place where names are published. Its methods may be called concurrently.
type Zone interface {
	// Read returns what the zone publishes of the names it was made for. It asks the zone's own server, not a cache.
	Read(ctx context.Context) (Reading, error)
	// Update makes the zone publish change.Want. It returns ErrSuperseded if a writer of a higher epoch was there, and
	// ErrRaced if somebody wrote at the same time; neither has changed anything. After any other error the change may have
	// been made, or half of it at a zone without a guard; asking again is safe.
	Update(ctx context.Context, change Change) error
}

// Reading is what a zone publishes.
type Reading struct {
	// Records are the A, AAAA and MX records of the names asked for, sorted, each once. There may be kinds among them that
	// Update leaves alone, because nothing of the kind is wanted for that name.
	Records []cluster.Record
	// Epoch is the guard's. Zero: there is no guard yet, or this kind of zone has none.
	Epoch uint64
	// Sent is when the first request was sent.
	Sent cluster.Instant
}

// Change is what a zone shall publish.
type Change struct {
	// Epoch is the writer's, above zero.
	Epoch uint64
	// Own are the names that the cluster owns, relative to the zone, "@" for the zone itself.
	Own []string
	// Want are the records they shall have, each once. A name of Own that is not in it stays as it is.
	Want []cluster.Record
}

// Outcomes that a caller acts upon. After none of them has anything been changed.
var (
	// ErrSuperseded: the zone carries a higher epoch than the change.
	ErrSuperseded = errors.New("somebody with a higher epoch has written the zone")
	// ErrRaced: the zone was changed between our reading and our writing. Read again, decide again.
	ErrRaced = errors.New("somebody else has written the zone at the same time")
	// ErrDenied: the server does not let our key do this. It takes a human.
	ErrDenied = errors.New("the name server denies it")
)

// ClockError says that the server refuses us because of the time on this machine. Nothing was changed.
type ClockError struct {
	// Server is the server's clock, signed by it, and Ahead how far it is ahead of ours.
	Server time.Time
	Ahead  time.Duration
}

func (e *ClockError) Error() string {
	word, by := "ahead of", e.Ahead
	if by < 0 {
		word, by = "behind", -by
	}
	return fmt.Sprintf("the name server's clock is %v %s this machine's", by, word)
}

// validate reports every problem of a change at once.
func (c Change) validate() error {
	var errs []error
	if c.Epoch == 0 {
		errs = append(errs, errors.New("epoch: must be above zero"))
	}
	errs = append(errs, checkNames(c.Own))
	seen := map[cluster.Record]bool{}
	for _, r := range c.Want {
		switch {
		case !slices.Contains(c.Own, r.Name):
			errs = append(errs, fmt.Errorf("%s %s: the name is not ours", r.Type, r.Name))
		case seen[r]:
			errs = append(errs, fmt.Errorf("%s %s %s: wanted twice", r.Type, r.Name, r.Value))
		}
		seen[r] = true
		if err := checkRecord(r); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// checkNames holds names to the form in which records are compared.
func checkNames(names []string) error {
	var errs []error
	for i, name := range names {
		if name != "@" && (name == "" || strings.HasSuffix(name, ".") || !plain(name)) {
			errs = append(errs, fmt.Errorf("%q is no name relative to a zone", name))
		}
		if slices.Contains(names[:i], name) {
			errs = append(errs, fmt.Errorf("%q is listed twice", name))
		}
	}
	return errors.Join(errs...)
}

// plain reports whether name is a domain name in lower case that needs no escape. What needs one could mean two things.
func plain(name string) bool {
	if _, ok := mdns.IsDomainName(name); !ok {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func checkRecord(r cluster.Record) error {
	bad := func(why string) error { return fmt.Errorf("%s %s %q: %s", r.Type, r.Name, r.Value, why) }
	a, err := netip.ParseAddr(r.Value)
	switch r.Type {
	case "A":
		if err != nil || !a.Is4() || a.String() != r.Value {
			return bad("must be an IPv4 address")
		}
	case "AAAA":
		if err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" || a.String() != r.Value {
			return bad("must be an IPv6 address in its shortest form")
		}
	case "MX":
		if !strings.HasSuffix(r.Value, ".") || r.Value == "." || !plain(r.Value) || r.Pref < 0 || r.Pref > 65535 {
			return bad("must be an absolute name in lower case, with a preference of 0 to 65535")
		}
	default:
		return bad("type must be A, AAAA or MX")
	}
	if r.Type != "MX" && r.Pref != 0 {
		return bad("only MX has a preference")
	}
	return nil
}

// sorted puts records in one order, each once.
func sorted(records []cluster.Record) []cluster.Record {
	slices.SortFunc(records, compare)
	return slices.Compact(records)
}

func compare(a, b cluster.Record) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Value, b.Value), cmp.Compare(a.Pref, b.Pref))
}

// kind says which records of a name are replaced together. A and AAAA are one kind: they are a name's addresses, and
// an address family that is no longer wanted must go.
func kind(r cluster.Record) string {
	if r.Type == "MX" {
		return "mail " + r.Name
	}
	return "addresses " + r.Name
}

// stale returns those of have that must go when want is to be published: of each name only the kinds that want has, so
// that no kind is ever emptied.
func stale(have, want []cluster.Record) []cluster.Record {
	kinds, keep := map[string]bool{}, map[cluster.Record]bool{}
	for _, r := range want {
		kinds[kind(r)], keep[r] = true, true
	}
	var out []cluster.Record
	for _, r := range have {
		if kinds[kind(r)] && !keep[r] {
			out = append(out, r)
		}
	}
	return out
}

// checkTTL returns the TTL to use, which is DefaultTTL for zero.
func checkTTL(ttl time.Duration) (time.Duration, error) {
	if ttl == 0 {
		return DefaultTTL, nil
	}
	if ttl < minTTL || ttl > maxTTL || ttl%time.Second != 0 {
		return 0, fmt.Errorf("ttl %v: must be whole seconds between %v and %v", ttl, minTTL, maxTTL)
	}
	return ttl, nil
}
