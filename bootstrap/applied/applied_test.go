package applied

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	want := Result{
		Version: Version, Commit: strings.Repeat("a", 40), Noop: true, Began: time.Unix(1_760_000_000, 0).UTC(), Took: "1m3s", Boot: "b", Code: 32, Phase: "puppet",
		Kind: "failed", Message: "1 of 9 resources failed", Next: "correct it", Fault: Commit, Resources: Resources{Total: 9, Failed: 1, Skipped: 2},
		Failures: []Failure{{"Package[nginx]", "site.pp:3", "no such package"}}, Seconds: map[string]float64{"total": 1.5},
		Restarts: []Restart{{"nginx.service", "reload", "Service[nginx]"}},
	}
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got.Duration() != 63*time.Second || got.Good() {
		t.Errorf("got %v, good: %v", got.Duration(), got.Good())
	}
}

func TestAnotherFormIsRefused(t *testing.T) {
	for _, text := range []string{"", "{", "{}", `{"version":1}`, `{"version":2,"commit":"a"}`} {
		if got, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestARestartDisturbsAndAReloadDoesNot(t *testing.T) {
	r := Result{Restarts: []Restart{{"a.service", "reload", ""}, {"b.service", "reload", ""}, {"b.service", "restart", ""}, {"c.service", "stop", ""}, {"d.service", "start", ""}}}
	for unit, want := range map[string]bool{"a.service": false, "b.service": true, "c.service": true, "d.service": false, "e.service": false} {
		if got := r.Disturbs(unit); got != want {
			t.Errorf("%s: got %v, want %v", unit, got, want)
		}
	}
}
