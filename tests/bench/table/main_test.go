package main

import (
	"strings"
	"testing"
)

func TestARowHasBothSidesAndWhatTheyTook(t *testing.T) {
	measured, err := read(strings.NewReader(`
BenchmarkMirrorChanged/understudy-2   1   64.0 MB   3.0 cpu-s   0.8 s/sync   1.000 watches
BenchmarkMirrorChanged/understudy-2   1   66.0 MB   5.0 cpu-s   1.0 s/sync   1.000 watches
BenchmarkMirrorChanged/rsync-2   1   20.0 MB   2.5 cpu-s   1.0 s/sync
BenchmarkMirrorLatency/understudy-2   1   20.0 MB   2.5 cpu-s   1.0 ms/p50 30.0 ms/p99
BenchmarkMirrorLatency/lsyncd-2   1   20.0 MB   2.5 cpu-s   15000 ms/p50 16000 ms/p99
`))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := print(&out, measured); err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]string{
		"after 1 % of it changed, against rsync -a unencrypted":              "0.9 1 0.90× ≤ 0.85× no 1 4 : 2.5 65 : 20",
		"a small file closed → the same on the peer, ms p50, against lsyncd": "1 1.5e+04 0.00× ≤ 5 yes 1 2.5 : 2.5 20 : 20",
		"the same, p99": "30 1.6e+04 0.00× ≤ 20 no 1",
		"1 GiB, first, against rsync -a over ssh": "not measured",
	} {
		got := "no such row"
		for line := range strings.SplitSeq(out.String(), "\n") {
			if rest, found := strings.CutPrefix(line, what+" "); found {
				got = strings.Join(strings.Fields(rest), " ")
				break
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
}
