//go:build linux

package keepalive

import (
	"testing"
	"time"
)

func TestEverybodyHearsAndConfirmsEverybody(t *testing.T) {
	w := newWorld(t, 8, 1, nil)
	w.run(3 * time.Second)
	for _, at := range w.names {
		for _, of := range w.names {
			if at == of {
				continue
			}
			p := w.peer(at, of)
			if silent := w.now.Since(p.Heard); silent > 101*time.Millisecond {
				t.Errorf("%s has not heard %s for %v, want at most a beat", at, of, silent)
			}
			if ago := w.now.Since(p.Confirmed); ago > 202*time.Millisecond {
				t.Errorf("%s is confirmed by %s as of %v ago, want at most two beats", at, of, ago)
			}
			if len(p.Hears) != len(w.names)-1 {
				t.Errorf("%s knows of %d that %s hears, want %d", at, len(p.Hears), of, len(w.names)-1)
			}
			if p.Every != 100*time.Millisecond {
				t.Errorf("%s says to %s that it sends every %v, want 100ms", of, at, p.Every)
			}
		}
	}
}
