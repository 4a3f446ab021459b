package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"understudy/bootstrap/role"
	"understudy/sidecar/cluster"
	"understudy/sidecar/dns"
	"understudy/sidecar/wallclock"
)

func TestClustersInOneZoneHaveOneGuardEach(t *testing.T) {
	for _, c := range []struct{ domain, zone, want string }{
		{"blog.example", "blog.example", "_understudy"},
		{"eu.blog.example", "blog.example", "_understudy.eu"},
		{"a.eu.blog.example", "blog.example", "_understudy.a.eu"},
	} {
		if got := guardName(c.domain, c.zone); got != c.want {
			t.Errorf("%s in %s: %s, want %s", c.domain, c.zone, got, c.want)
		}
	}
}

func TestNamesAreRelativeToTheZone(t *testing.T) {
	r := role.Roster{Domain: "eu.blog.example", Roles: []role.Role{
		{Names: []string{"www", "@"}},
		{Address: &role.Address{Names: []string{"mx", "www"}, MX: 10}},
	}}
	if got := ownNames(r, "blog.example"); !slices.Equal(got, []string{"eu", "mx.eu", "www.eu"}) {
		t.Errorf("in the parent zone: %q", got)
	}
	if got := ownNames(r, "eu.blog.example"); !slices.Equal(got, []string{"@", "mx", "www"}) {
		t.Errorf("in its own zone: %q", got)
	}
}

// refusing is a name server that does not accept our time.
type refusing struct{ err error }

func (r refusing) Read(context.Context) (dns.Reading, error) { return dns.Reading{}, r.err }
func (r refusing) Update(context.Context, dns.Change) error  { return r.err }

func TestANameServersRefusalSetsTheClock(t *testing.T) {
	there := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		err  error
		want time.Duration
	}{
		"its clock": {errors.Join(errors.New("ask"), &dns.ClockError{Server: there, Ahead: time.Hour}), time.Hour},
		"other":     {dns.ErrDenied, 0},
	} {
		for _, ask := range []func(zone) error{
			func(z zone) error { _, _, err := z.Read(t.Context()); return err },
			func(z zone) error { return z.Update(t.Context(), 1, nil, []cluster.Record{}) },
		} {
			var clock wallclock.Clock
			err := ask(zone{refusing{c.err}, func(at time.Time) { clock.Hear("it", at) }})
			if got := clock.Ahead().Round(time.Minute); !errors.Is(err, c.err) || got != c.want {
				t.Errorf("%s: ahead %v after %v, want %v", name, got, err, c.want)
			}
		}
	}
}
