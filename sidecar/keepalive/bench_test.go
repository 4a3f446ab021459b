//go:build linux

package keepalive

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkBeat is the cost of making a beat, BenchmarkReceive that of taking one in; the kernel's share is not in them.
func BenchmarkBeat(b *testing.B) {
	for _, size := range []int{8, 32} {
		b.Run(fmt.Sprintf("members=%d", size), func(b *testing.B) {
			w := newWorld(b, size, 1, nil)
			w.say("n00", everything())
			w.run(time.Second)
			n := w.nodes["n00"]
			var packet []byte
			b.ReportAllocs()
			for b.Loop() {
				packet = n.beat(packet[:0], w.now, nil, header{})
			}
			b.ReportMetric(float64(len(packet)), "B/beat")
		})
	}
}

func BenchmarkReceive(b *testing.B) {
	for _, size := range []int{8, 32} {
		b.Run(fmt.Sprintf("members=%d", size), func(b *testing.B) {
			w := newWorld(b, size, 1, nil)
			w.say("n00", everything())
			w.run(time.Second)
			from, to := w.nodes["n00"], w.nodes["n01"]
			var packet []byte
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				packet = from.beat(packet[:0], w.now, nil, header{})
				b.StartTimer()
				to.receive(packet, from.addr, w.now)
			}
			if refused := to.stats.Refused[Stale]; refused > 0 {
				b.Fatalf("%d beats were refused", refused)
			}
		})
	}
}

func BenchmarkPeers(b *testing.B) {
	for _, size := range []int{8, 32} {
		b.Run(fmt.Sprintf("members=%d", size), func(b *testing.B) {
			w := newWorld(b, size, 1, nil)
			w.run(time.Second)
			b.ReportAllocs()
			for b.Loop() {
				for _, p := range w.nodes["n00"].order {
					p.hears = nil // as if each had sent a beat since
				}
				w.nodes["n00"].snapshot()
			}
		})
	}
}
