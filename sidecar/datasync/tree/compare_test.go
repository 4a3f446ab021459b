//go:build linux

package tree

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestCompareOneDirectory(t *testing.T) {
	x, y := Hash{1}, Hash{2}
	source := []Child{
		{Name: "changed", Kind: File, Sum: x}, {Name: "dir", Kind: Directory, Sum: x, Digest: x},
		{Name: "held", Kind: File, Unsettled: true}, {Name: "mode", Kind: Directory, Sum: x, Digest: x},
		{Name: "new", Kind: Directory, Sum: x}, {Name: "newheld", Unsettled: true}, {Name: "same", Kind: Directory, Sum: x, Digest: x},
		{Name: "turned", Kind: Directory, Sum: x},
	}
	mirror := []Child{
		{Name: "changed", Kind: File, Sum: y}, {Name: "dir", Kind: Directory, Sum: x, Digest: y}, {Name: "extra", Kind: File},
		{Name: "held", Kind: Directory}, {Name: "mode", Kind: Directory, Sum: y, Digest: x},
		{Name: "same", Kind: Directory, Sum: x, Digest: x}, {Name: "turned", Kind: Symlink}, {Name: "zextra", Kind: File},
	}
	want := []Finding{
		{"changed", Differs, false}, {"dir", Contents, true}, {"extra", Extra, false}, {"held", Held, false}, {"mode", Differs, false},
		{"new", Missing, true}, {"newheld", Held, false}, {"turned", Differs, true}, {"zextra", Extra, false},
	}
	if got := Compare(source, mirror); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := Compare(nil, nil); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestAnIndexComesAfterWhatItNames(t *testing.T) {
	root := t.TempDir()
	for _, path := range []string{"dists/sid/InRelease", "dists/sid/Release", "dists/sid/main/Packages", "pool/a.deb", "zzz", "db.lock"} {
		write(t, root+"/"+path, path)
	}
	policy := AptRepository()
	var got []string
	for _, op := range Diff(scan(t, scanner(t, root, Options{Policy: policy}), nil), newTree(), policy).Ops {
		if op.Action == Write {
			got = append(got, op.Entry.Path)
		}
	}
	want := []string{"pool/a.deb", "zzz", "dists/sid/main/Packages", "dists/sid/Release", "dists/sid/InRelease"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := (Policy{Ignore: []string{"[", "/etc", ""}}).Validate(); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("got %v, want three problems", err)
	}
}

func TestRails(t *testing.T) {
	files := func(n int, bytes int64) Totals { return Totals{Files: n, Bytes: bytes} }
	for _, c := range []struct {
		name  string
		s     Situation
		want  string // part of the refusal; empty: none
		allow int
	}{
		{"unmarked", Situation{Allowed: 1 << 30, Source: files(9, 9)}, "no marker", 0},
		{"foreign", Situation{Marker: Foreign, Source: files(9, 9)}, "another set", 0},
		{"first time", Situation{Marker: Marked}, "", 0},
		{"empty", Situation{Marker: Marked, Mirror: files(3, 3), Deletes: files(3, 3)}, "is empty", 3},
		{"empty, of little", Situation{Marker: Marked, Mirror: files(2, 2), Deletes: files(2, 2)}, "", 0},
		{"empty, of two large ones", Situation{Marker: Marked, Mirror: files(2, 64<<20), Deletes: files(2, 64<<20)}, "is empty", 2},
		{"empty, allowed", Situation{Marker: Marked, Mirror: files(3, 3), Deletes: files(3, 3), Allowed: 3}, "", 0},
		{"few", Situation{Marker: Marked, Source: files(1, 1), Mirror: files(19, 19), Deletes: files(18, 18)}, "", 0},
		{"half", Situation{Marker: Marked, Source: files(10, 1), Mirror: files(20, 20), Deletes: files(10, 10)}, "", 0},
		{"more than half", Situation{Marker: Marked, Source: files(9, 1), Mirror: files(20, 20), Deletes: files(11, 11)}, "11 of the mirror's 20", 11},
		{"allowed too few", Situation{Marker: Marked, Source: files(9, 1), Mirror: files(20, 20), Deletes: files(11, 11), Allowed: 10}, "more than half", 11},
		{"cut to nothing", Situation{Marker: Marked, Source: files(20, 0), Mirror: files(20, 64<<20)}, "bytes", 1},
		{"a tenth", Situation{Marker: Marked, Source: files(20, 7<<20), Mirror: files(20, 64<<20)}, "", 0},
	} {
		err := c.s.Check()
		var refusal *Refusal
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: refused: %v", c.name, err)
		case c.want != "" && (!errors.As(err, &refusal) || !strings.Contains(refusal.Why, c.want) || refusal.Allow != c.allow):
			t.Errorf("%s: got %v, want %q and %d", c.name, err, c.want, c.allow)
		}
	}
}
