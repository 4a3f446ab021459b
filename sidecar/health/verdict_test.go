//go:build linux

package health

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"understudy/sidecar/cluster"
)

var usual = limits{good: 2, bad: 3}

// looks reads a history: + good, - bad, ? could not tell; one a second.
func looks(v verdict, at *time.Time, history string) verdict {
	for _, r := range history {
		*at = at.Add(time.Second)
		v = v.after(look{ok: r == '+', unsure: r == '?', why: "because"}, *at, usual)
	}
	return v
}

func TestVerdictNeedsSeveralLooks(t *testing.T) {
	for history, want := range map[string]cluster.Health{
		"":                   cluster.Unknown,
		"+":                  cluster.Healthy,
		"-":                  cluster.Unknown,
		"--":                 cluster.Unknown,
		"---":                cluster.Unhealthy,
		"--+":                cluster.Healthy,
		"+--":                cluster.Healthy,
		"+---":               cluster.Unhealthy,
		"+--+--+--":          cluster.Healthy,
		"---+":               cluster.Unhealthy,
		"---+-+-+":           cluster.Unhealthy,
		"---++":              cluster.Healthy,
		"+??????":            cluster.Healthy,
		"+--?-":              cluster.Unhealthy,
		"??":                 cluster.Unknown,
		"+?????????????":     cluster.Unhealthy,
		"+?????????+???????": cluster.Healthy,
	} {
		var at time.Time
		if got := looks(verdict{}, &at, history).health; got != want {
			t.Errorf("%q: got %v, want %v", history, got, want)
		}
	}
}

func TestEachFallDoublesWhatComingBackTakes(t *testing.T) {
	at := time.Now()
	v := looks(verdict{}, &at, "+")
	for fall, want := range []int{2, 4, 8, 16, 32, 60, 60} {
		v = looks(v, &at, "---") // never delayed
		if v.health != cluster.Unhealthy {
			t.Fatalf("fall %d: got %v, want unhealthy", fall, v.health)
		}
		if got, want := v.flapping(), fall >= 2; got != want {
			t.Errorf("fall %d: flapping: got %v, want %v", fall, got, want)
		}
		v = looks(v, &at, strings.Repeat("+", want-1))
		if v.health != cluster.Unhealthy {
			t.Errorf("fall %d: healthy too early, after %d good looks", fall, want-1)
		}
		if got := v.sentence(usual); !strings.Contains(got, "well again for") {
			t.Errorf("fall %d: got %q, want how long it has been well", fall, got)
		}
		if v = looks(v, &at, "+"); v.health != cluster.Healthy {
			t.Errorf("fall %d: got %v after %d good looks, want healthy", fall, v.health, want)
		}
	}
	at = at.Add(flapWindow)
	if v = looks(v, &at, "+"); v.flapping() || v.sentence(usual) != "" {
		t.Errorf("a quiet while later: got %q, want nothing to say", v.sentence(usual))
	}
}

// The law of hysteresis, whatever the history: a fall comes with exactly the third bad look in a row, never without
// three and never later, and coming back takes at least two good ones and at most a minute of them.
func TestVerdictLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Now()
		var v verdict
		good, bad := 0, 0
		for _, ok := range rapid.SliceOfN(rapid.Bool(), 1, 400).Draw(t, "history") {
			before := v
			at = at.Add(time.Second)
			v = v.after(look{ok: ok}, at, usual)
			if ok {
				good, bad = good+1, 0
			} else {
				good, bad = 0, bad+1
			}
			switch {
			case bad >= usual.bad && v.health != cluster.Unhealthy:
				t.Fatalf("still %v after %d bad looks", v.health, bad)
			case before.health == cluster.Healthy && v.health == cluster.Unhealthy && bad < usual.bad:
				t.Fatalf("fell after %d bad looks", bad)
			case before.health == cluster.Unhealthy && v.health == cluster.Healthy && good < usual.good:
				t.Fatalf("came back after %d good looks", good)
			case good >= mostGood && v.health != cluster.Healthy:
				t.Fatalf("not back after %d good looks", good)
			}
		}
	})
}
