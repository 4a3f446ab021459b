package reconcile

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
)

// nonce and coordinates: this node replaces web1 under epoch 7 of coordination.
const nonce = "00112233445566778899aabbccddeeff"

var coordinates = decide.Expect{Duty: cluster.Coordinator, Epoch: 7}

func web1Intent() cluster.Intent {
	return cluster.Intent{Node: "web1", N: 1, Nonce: nonce, Replaces: 3, Machine: "33", By: "lb1", Epoch: 7, Try: 1, Why: "it is gone"}
}

// replacing is a rig that coordinates and wants one action, in a world in which that action may be done.
func replacing(t *testing.T, a decide.Action, change func(f *fakeLedger, r *rig)) (*rig, *fakeLedger) {
	t.Helper()
	m := decide.Memory{Out: 1, Duties: map[string]decide.Duty{cluster.Coordinator: {Hold: cluster.Hold{Duty: cluster.Coordinator, Epoch: 7, State: cluster.Held}}}}
	var f *fakeLedger
	r := newRig(t, func(v decide.View, _ decide.Memory) decide.Decision {
		return decide.Decision{Memory: m, Actions: []decide.Action{a}, LookAgain: v.Now.Add(50 * time.Millisecond)}
	}, func(c *Config, w *World) {
		c.Tag = "blog"
		f = newFakeLedger(w.Mesh.(fakeMesh).world)
		f.claims["lb1"] = cluster.Claim{Node: "lb1", Epoch: 1, Machine: "11"}
		f.claims["web1"] = cluster.Claim{Node: "web1", Epoch: 3, Machine: "33", Tombstoned: true}
		f.intents["web1"] = web1Intent()
		w.Ledger = f
		w.Hire = func(string) (cloud.Hiring, error) { return cloud.Hiring{Tags: []string{}}, nil }
	})
	r.machines = []cluster.Machine{
		{ID: "11", Name: "lb1", Tags: []string{"blog"}, Power: cluster.PowerOn},
		{ID: "33", Name: "web1", Tags: []string{"blog"}, Power: cluster.PowerOff},
	}
	if change != nil {
		change(f, r)
	}
	return r, f
}

// does runs a rig for a while and returns what was asked of the provider and written to the ledger.
func (r *rig) does(d time.Duration) []string {
	r.t.Helper()
	r.run()
	time.Sleep(d)
	synctest.Wait()
	happened := r.happened()
	if err := r.stop(); err != nil {
		r.t.Error(err)
	}
	var all []string
	for _, e := range happened {
		for _, verb := range []string{"probe", "power off", "create", "delete", "tombstone", "leave", "intent", "call", "done", "failed", "aborted"} {
			if strings.HasPrefix(e, verb+" ") && !strings.HasPrefix(e, "cut off") {
				all = append(all, e)
			}
		}
	}
	return all
}

func create() decide.Action { return decide.Create{Expect: coordinates, Intent: web1Intent(), Most: 4} }

func off() decide.Action {
	return decide.PowerOff{Expect: coordinates, Node: "web1", Machine: "33", Claim: 3}
}

// probed gives web1's machine, which runs, a public address at which a sidecar answers, or fails to.
func probed(answer error) func(*fakeLedger, *rig) {
	return func(_ *fakeLedger, r *rig) {
		r.machines[1].Power, r.machines[1].Public = cluster.PowerOn, netip.MustParseAddr("203.0.113.33")
		r.loop.world.Probe = func(ctx context.Context, node string, at netip.Addr) error {
			return errors.Join(r.call(ctx, "probe %s %s", node, at), answer)
		}
	}
}

func remove() decide.Action { return decide.Delete{Expect: coordinates, Node: "web1", Machine: "33"} }

func bury() decide.Action { return decide.Tombstone{Expect: coordinates, Node: "web1", Epoch: 3} }

func TestEveryStepOfAReplacementReadsAfreshWhatItAssumes(t *testing.T) {
	heard := func(_ *fakeLedger, r *rig) {
		r.heard = map[string]cluster.Peer{"web1": {Heard: r.now() + cluster.Instant(time.Second)}}
	}
	claimedAgain := func(f *fakeLedger, _ *rig) { f.claims["web1"] = cluster.Claim{Node: "web1", Epoch: 4, Machine: "33"} }
	superseded := func(f *fakeLedger, _ *rig) {
		f.duties[cluster.Coordinator] = cluster.DutyRecord{Duty: cluster.Coordinator, Epoch: 8, Holder: "lb2"}
	}
	notMyself := func(f *fakeLedger, _ *rig) { f.claims["lb1"] = cluster.Claim{Node: "lb1", Epoch: 2, Machine: "99"} }
	noTombstone := func(f *fakeLedger, _ *rig) { f.claims["web1"] = cluster.Claim{Node: "web1", Epoch: 3, Machine: "33"} }
	away := func(f *fakeLedger, _ *rig) { f.away = errBroken }
	for name, c := range map[string]struct {
		action decide.Action
		change func(*fakeLedger, *rig)
		want   []string
	}{
		"create":                          {create(), nil, []string{"call web1", "create web1 intent-" + nonce}},
		"create, the old machine runs":    {create(), func(_ *fakeLedger, r *rig) { r.machines[1].Power = cluster.PowerOn }, nil},
		"create, claimed again":           {create(), claimedAgain, nil},
		"create, no tombstone":            {create(), noTombstone, nil},
		"create, another coordinates":     {create(), superseded, nil},
		"create, not this node any more":  {create(), notMyself, nil},
		"create, ledger away":             {create(), away, nil},
		"create, a list without this one": {create(), func(_ *fakeLedger, r *rig) { r.machines = r.machines[1:] }, nil},
		"create, intent closed": {create(), func(f *fakeLedger, _ *rig) {
			i := web1Intent()
			i.Closed.Outcome = cluster.Failed
			f.intents["web1"] = i
		}, nil},
		"create, called already":      {create(), func(f *fakeLedger, _ *rig) { i := web1Intent(); i.Called = 1; f.intents["web1"] = i }, nil},
		"create, it is there already": {create(), func(_ *fakeLedger, r *rig) { r.machines[1].Tags = append(r.machines[1].Tags, "intent-"+nonce) }, nil},
		"create, too many machines": {create(), func(_ *fakeLedger, r *rig) {
			r.machines = append(r.machines, r.machines[0], r.machines[0], r.machines[0])
		}, nil},
		"tombstone by a minority, it runs": {decide.Tombstone{Expect: coordinates, Node: "web1", Epoch: 3, Machine: "33", Off: true}, func(f *fakeLedger, r *rig) {
			noTombstone(f, r)
			r.machines[1].Power = cluster.PowerOn
		}, nil},
		"tombstone by a minority":           {decide.Tombstone{Expect: coordinates, Node: "web1", Epoch: 3, Machine: "33", Off: true}, noTombstone, []string{"tombstone web1"}},
		"power off":                         {off(), nil, []string{"power off 33 web1"}},
		"power off, no tombstone":           {off(), noTombstone, nil},
		"power off, claimed again":          {off(), claimedAgain, nil},
		"power off, heard again":            {off(), heard, nil},
		"power off, another coordinates":    {off(), superseded, nil},
		"power off, not this node any more": {off(), notMyself, nil},
		"power off, ledger away":            {off(), away, nil},
		"power off, it speaks":              {off(), probed(nil), []string{"probe web1 203.0.113.33"}},
		"power off, it is mute":             {off(), probed(errBroken), []string{"probe web1 203.0.113.33", "power off 33 web1"}},
		"power off, no longer the node":     {decide.PowerOff{Expect: coordinates, Node: "web1", Machine: "33"}, probed(nil), []string{"power off 33 web1"}},
		"power off, no public address": {off(), func(f *fakeLedger, r *rig) {
			probed(nil)(f, r)
			r.machines[1].Public = netip.Addr{}
		}, []string{"power off 33 web1"}},
		"delete":                             {remove(), nil, []string{"delete 33 web1"}},
		"delete, it is the node":             {remove(), noTombstone, nil},
		"delete, claimed again":              {remove(), claimedAgain, nil},
		"delete, another coordinates":        {remove(), superseded, nil},
		"delete this machine":                {decide.Delete{Expect: coordinates, Node: "web1", Machine: "11"}, nil, nil},
		"tombstone":                          {bury(), noTombstone, []string{"tombstone web1"}},
		"tombstone, heard again":             {bury(), func(f *fakeLedger, r *rig) { noTombstone(f, r); heard(f, r) }, nil},
		"tombstone, claimed again":           {bury(), claimedAgain, nil},
		"tombstone, another coordinates":     {bury(), superseded, nil},
		"leaving":                            {decide.Release{Node: "lb1", Epoch: 1}, nil, []string{"leave lb1"}},
		"leaving, somebody has claimed":      {decide.Release{Node: "lb1", Epoch: 1}, notMyself, nil},
		"leaving, under an older claim":      {decide.Release{Node: "lb1", Epoch: 0}, nil, nil},
		"leaving, ledger away":               {decide.Release{Node: "lb1", Epoch: 1}, away, nil},
		"intent, one is open":                {decide.OpenIntent{Expect: coordinates, Intent: cluster.Intent{Node: "web1", N: 2, Replaces: 3, Machine: "33"}}, nil, nil},
		"intent, somebody has claimed":       {decide.OpenIntent{Expect: coordinates, Intent: cluster.Intent{Node: "web1", N: 1, Replaces: 3, Machine: "33"}}, func(f *fakeLedger, r *rig) { clear(f.intents); claimedAgain(f, r) }, nil},
		"intent, another coordinates":        {decide.OpenIntent{Expect: coordinates, Intent: web1Intent()}, func(f *fakeLedger, r *rig) { clear(f.intents); superseded(f, r) }, nil},
		"closing":                            {decide.CloseIntent{Expect: coordinates, Closing: cluster.Closing{Node: "web1", N: 1, Outcome: cluster.Done}}, nil, []string{"done web1"}},
		"closing of an earlier one":          {decide.CloseIntent{Expect: coordinates, Closing: cluster.Closing{Node: "web1", N: 0, Outcome: cluster.Done}}, nil, nil},
		"power off under an epoch not held":  {decide.PowerOff{Expect: decide.Expect{Duty: cluster.Coordinator, Epoch: 6}, Node: "web1", Machine: "33", Claim: 3}, nil, nil},
		"unwanted machine, while it is web1": {decide.PowerOff{Expect: coordinates, Node: "web1", Machine: "33"}, noTombstone, nil},
	} {
		bubble(t, func(t *testing.T) {
			r, _ := replacing(t, c.action, c.change)
			got := slices.Compact(r.does(900 * time.Millisecond))
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: did %q, want %q", name, got, c.want)
			}
		})
	}
}

// A call whose answer was lost may have brought a machine, so it is never made again; one that was refused has not.
func TestACreateIsAskedForOnceWhateverComesOfIt(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		closes bool
	}{
		"no answer": {errBroken, false},
		"refused":   {errors.Join(errBroken, cloud.ErrLimit), true},
		"limited":   {&cloud.RateLimitedError{}, true},
		"done":      {nil, false},
	} {
		bubble(t, func(t *testing.T) {
			r, f := replacing(t, create(), nil)
			r.fail("create web1 intent-"+nonce, c.err)
			did := r.does(2 * time.Minute)
			n := 0
			for _, e := range did {
				if strings.HasPrefix(e, "create ") {
					n++
				}
			}
			if closed := f.intents["web1"].Closed.Outcome == cluster.Failed; n != 1 || closed != c.closes {
				t.Errorf("%s: asked %d times, closed %v; did %q", name, n, closed, did)
			}
		})
	}
}

func TestTheListSaysWhatTheLedgerKnowsOfEachMachine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, _ := replacing(t, decide.ReadList{}, func(_ *fakeLedger, r *rig) {
			r.machines = append(r.machines,
				cluster.Machine{ID: "44", Name: "web1", Tags: []string{"blog", "intent-" + nonce}},
				cluster.Machine{ID: "55", Name: "web1", Tags: []string{"blog", "intent-ff"}},
				cluster.Machine{ID: "66", Name: "old1", Tags: []string{"blog"}})
		})
		if err := r.loop.readLedger(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.does(3 * time.Second)
		l := r.view().List
		known := map[string]bool{}
		for _, m := range l.Machines {
			known[m.ID] = m.Known
		}
		if !known["11"] || !known["33"] || !known["44"] || known["55"] || known["66"] || l.Agree < 2 {
			t.Errorf("known %v, %d lists agree", known, l.Agree)
		}
	})
}
