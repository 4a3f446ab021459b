//go:build linux

package keepalive

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/cluster"
)

func newString(b []byte) string { return string(b) }

// everything is an announcement in which nothing is zero.
func everything() cluster.Announcement {
	return cluster.Announcement{
		Claim: 7, Machine: "3164494", Private: netip.MustParseAddr("10.77.1.2"), Public: netip.MustParseAddr("2001:db8::2"),
		Phase: cluster.Serving, Health: cluster.Healthy, Voting: true, Paused: true, Commit: strings.Repeat("5e", 20), ClockOff: true,
		Promises: []cluster.Promise{{Duty: "@cluster", Epoch: 300, Holder: "web1", Clear: true}, {Duty: "lb", Epoch: 2, Holder: "lb1", Lease: true, AfterLease: true}},
		Bids:     []cluster.Bid{{Duty: "mail", Epoch: 1 << 40, Lease: true}, {Duty: "repo", Epoch: 3, Last: true}},
		Holds:    []cluster.Hold{{Duty: "mail", Epoch: 12, State: cluster.Offered, To: "mail2"}},
		Mirrors: []cluster.Mirror{{Role: "mail", Epoch: 12, Source: true, CaughtUp: true, Synced: 14, From: 12},
			{Role: "repo", Epoch: 3, Complete: true, Lag: 90 * time.Second, Behind: 1 << 33}},
		Want: []cluster.Move{{Duty: "lb", From: 2, To: "lb2"}},
		Rollout: cluster.Rollout{
			Roster: 1 << 63, Next: 7,
			Head: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d", Ask: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d", Busy: true, Restarts: true, Yield: "lb2", Unreached: true,
			Leaves: true, Drained: true,
			Bad: []cluster.BadCommit{{Commit: "4d5e6f708192a3b4c5d6e7f8091a2b3c4d1a2b3c", Node: "web1", Why: "Service[nginx] failed"}},
		},
	}
}

// decodeWhole reads an announcement with its lags.
func decodeWhole(said []byte, of []lag) (cluster.Announcement, error) {
	a, err := decodeAnnouncement(said)
	if err == nil {
		err = setLags(&a, of)
	}
	return a, err
}

func TestAnnouncementArrivesAsItWasSaid(t *testing.T) {
	for name, want := range map[string]cluster.Announcement{"everything": everything(), "nothing": {}} {
		got, err := decodeWhole(appendAnnouncement(nil, want), lags(want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
}

// Each field on its own must change the bytes, or a change of it would not be noticed; lags must not, or they would be
// noticed all the time.
func TestEveryFieldButLagsMakesAnotherAnnouncement(t *testing.T) {
	base := appendAnnouncement(nil, everything())
	differs := func(path string, a cluster.Announcement) {
		lag := slices.Contains([]string{"Mirrors.CaughtUp", "Mirrors.Lag", "Mirrors.Behind"}, path)
		if same := bytes.Equal(appendAnnouncement(nil, a), base); same != lag {
			t.Errorf("%s changed: same bytes is %v, want %v", path, same, lag)
		}
	}
	fields := reflect.TypeFor[cluster.Announcement]()
	for i := range fields.NumField() {
		a := everything()
		f := reflect.ValueOf(&a).Elem().Field(i)
		if f.Kind() != reflect.Slice {
			f.SetZero()
			differs(fields.Field(i).Name, a)
			continue
		}
		for j := range f.Index(0).NumField() {
			a := everything()
			item := reflect.ValueOf(&a).Elem().Field(i).Index(f.Len() - 1).Field(j)
			path := fields.Field(i).Name + "." + f.Index(0).Type().Field(j).Name
			change(item)
			differs(path, a)
		}
	}
}

func change(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Uint8:
		v.SetUint(uint64(cluster.Held))
	case reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Int64:
		v.SetInt(v.Int() + int64(time.Second))
	default:
		panic(v.Kind())
	}
}

// anyBody makes bodies with names that share much or nothing.
func anyBody(t *rapid.T) body {
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`(web|w|mail-fra1-production-)[0-9]{0,2}`), 0, 40, rapid.ID[string]).Draw(t, "names")
	b := body{said: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "said")}
	for range rapid.IntRange(0, 4).Draw(t, "lags") {
		b.lags = append(b.lags, lag{rapid.Bool().Draw(t, "caught up"), anyDuration(t), rapid.Uint64().Draw(t, "behind")})
	}
	for _, name := range sortedCopy(names) {
		e := entry{Every: anyDuration(t)}
		e.Peer = name
		if e.Session = rapid.Uint64().Draw(t, "session"); e.Session != 0 {
			e.Seq, e.Ago = rapid.Uint64().Draw(t, "seq"), anyDuration(t)
		}
		b.heard = append(b.heard, e)
	}
	return b
}

func anyDuration(t *rapid.T) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(cluster.Forever/time.Millisecond)).Draw(t, "ms")) * time.Millisecond
}

func TestBodyArrivesAsItWasSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyBody(t)
		var got body
		more, err := decodeBody(append(appendBody(nil, &want), "later"...), &got, newString)
		if err != nil || string(more) != "later" {
			t.Fatalf("got %v and %q behind, want no error and what a later version adds", err, more)
		}
		if !bytes.Equal(got.said, want.said) || !equalOrEmpty(got.lags, want.lags) || !equalOrEmpty(got.heard, want.heard) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		for _, e := range want.heard {
			if got.about(e.Peer) != e {
				t.Fatalf("about %s: got %+v, want %+v", e.Peer, got.about(e.Peer), e)
			}
		}
	})
}

func TestBeatOfThirtyTwoFitsOnePacket(t *testing.T) {
	b := body{said: appendAnnouncement(nil, everything()), lags: lags(everything())}
	for i := range 31 {
		e := entry{Every: 500 * time.Millisecond}
		e.Peer, e.Session, e.Seq, e.Ago = fmt.Sprintf("web-fra1-production-%02d.blog", i), 1<<63, 1<<33, 400*time.Millisecond
		b.heard = append(b.heard, e)
	}
	k, err := newKeys(secrets.NewSecret("k"))
	if err != nil {
		t.Fatal(err)
	}
	packet := k.of("web-fra1-production-31.blog", 1).seal(appendHeader(nil, "web-fra1-production-31.blog", 1, 1), 1, appendBody(nil, &b))
	if len(packet) > packetSize {
		t.Errorf("got %d bytes, want at most %d", len(packet), packetSize)
	}
}

func FuzzBody(f *testing.F) {
	f.Add(appendBody(nil, &body{}))
	two := body{said: []byte("said"), lags: []lag{{by: time.Second}}, heard: []entry{{Every: time.Second}, {Every: time.Second}}}
	two.heard[0].Peer, two.heard[1].Peer = "web1", "web2"
	two.heard[1].Session, two.heard[1].Seq, two.heard[1].Ago = 5, 6, time.Minute
	f.Add(appendBody(nil, &two))
	f.Fuzz(func(t *testing.T, data []byte) {
		var b body
		more, err := decodeBody(data, &b, newString)
		if err != nil {
			return
		}
		if again := append(appendBody(nil, &b), more...); !bytes.Equal(again, data) {
			t.Fatalf("got %x from %+v, want the bytes it was read from: %x", again, b, data)
		}
	})
}

func FuzzAnnouncement(f *testing.F) {
	f.Add(appendAnnouncement(nil, cluster.Announcement{}))
	f.Add(appendAnnouncement(nil, everything()))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := decodeAnnouncement(data)
		if err != nil {
			return
		}
		if again := appendAnnouncement(nil, a); !bytes.Equal(again, data) {
			t.Fatalf("got %x from %+v, want the bytes it was read from: %x", again, a, data)
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(appendHeader(nil, "web1", 1, 2))
	f.Add([]byte("ust\x02"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, why := parseHeader(data)
		if why != "" {
			return
		}
		if again := appendHeader(nil, string(h.sender), h.session, h.seq); !bytes.HasPrefix(data, again) || len(again) != h.size {
			t.Fatalf("got %x of %d bytes, want what the packet begins with: %x", again, h.size, data)
		}
	})
}
