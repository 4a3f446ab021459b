package decide

import (
	"testing"
	"time"
)

// A turn of the loop at rest costs this much; there are about ten to twenty a second.
func BenchmarkNext(b *testing.B) {
	g := newRig(&testing.T{}, eight)
	g.run(3 * time.Second)
	n := g.nodes["mail1"]
	n.v.Now = g.now
	b.ReportAllocs()
	for b.Loop() {
		Next(n.v, n.m, n.p)
	}
}
