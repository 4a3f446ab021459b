package admin

import (
	"encoding/json"
	"testing"
	"time"
)

func TestDurationsAreWordsPeopleRead(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 4 * time.Millisecond: "0s", 853 * time.Millisecond: "850ms", 3210 * time.Millisecond: "3.2s",
		time.Minute: "1m", 125 * time.Second: "2m5s", time.Hour: "1h", 70 * time.Minute: "1h10m", 30*time.Hour + 20*time.Second: "30h",
		48 * time.Hour: "2 days", 90 * 24 * time.Hour: "90 days",
	} {
		if got := Words(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestADurationInJSONIsReadBack(t *testing.T) {
	for _, d := range []time.Duration{0, 350 * time.Millisecond, 90 * time.Second, -time.Second} {
		text, err := json.Marshal(Duration(d))
		var back Duration
		if err != nil || json.Unmarshal(text, &back) != nil || back != Duration(d) {
			t.Errorf("%v: got %s, %v", d, text, err)
		}
	}
	if got, _ := json.Marshal(Duration(1234567)); string(got) != `"1ms"` {
		t.Errorf("got %s, want it rounded to 1ms", got)
	}
}
