//go:build linux

package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"understudy/sidecar/datasync/tree"
)

func entries() []tree.Entry {
	h := tree.Hash{1, 2, 3}
	return []tree.Entry{
		{Path: ".", Kind: tree.Directory, Mode: 0o755, Owner: "root", Group: "#1000", MTime: -5},
		{Path: "a/b\n\xff", Kind: tree.File, Mode: 0o7777, Owner: "vmail", Group: "vmail", MTime: 1 << 60, Size: 1 << 40, Hash: h,
			Xattrs: []tree.Xattr{{Name: "user.x", Value: "\x00"}, {Name: "user.y"}}, Link: "a/a"},
		{Path: strings.Repeat("n", 255), Kind: tree.Symlink, Mode: 0o777, Owner: "root", Group: "root", Target: "../\xfe"},
	}
}

// messages are some of every kind.
func messages() []Message {
	h := tree.Hash{9: 7}
	all := []Message{
		&Hello{Version, "mail/var/vmail", 7}, &Offer{8, h}, &Accept{true, h, 3, 1 << 50}, &Refusal{"no"}, &Ask{"."}, &Sign{"a/b"},
		&Children{Path: "a", Children: []tree.Child{}, Last: true},
		&Children{Path: "a", Children: []tree.Child{{Name: "b", Kind: tree.File, Sum: h}, {Name: "c", Kind: tree.Directory, Unsettled: true, Sum: h, Digest: h}}},
		&Data{[]byte{}}, &Data{bytes.Repeat([]byte{5}, MaxData)}, &Packed{MaxData, []byte{1, 2}}, &Packed{1, bytes.Repeat([]byte{5}, MaxData)}, &Remove{"x"}, &Keep{"y"}, &Commit{9, true, false}, &Commit{10, false, true}, &Durable{9}, &Failed{"x", "full"},
	}
	for _, e := range entries() {
		all = append(all, &Put{e}, &Patch{e}, &Make{e}, &Set{e}, &Take{"from/here", e})
	}
	return all
}

func TestEveryMessageArrivesAsItWasSent(t *testing.T) {
	var stream bytes.Buffer
	w := NewWriter(&stream)
	seen := map[byte]bool{}
	for _, m := range messages() {
		seen[m.kind()] = true
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&stream)
	for _, want := range messages() {
		if got, err := r.Read(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	if _, err := r.Read(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for k := byte(1); empty(k) != nil; k++ {
		if !seen[k] || empty(k).kind() != k {
			t.Errorf("kind %d is not tried, or is %d", k, empty(k).kind())
		}
	}
}

func frame(m Message) []byte {
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := errors.Join(w.Write(m), w.Flush()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestWhatIsCutOffIsNoMessage(t *testing.T) {
	for _, m := range messages() {
		whole := frame(m)
		if len(whole) > 2000 {
			continue
		}
		for n := 1; n < len(whole); n++ {
			if got, err := NewReader(bytes.NewReader(whole[:n])).Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%T cut at %d: got %+v, %v", m, n, got, err)
			}
		}
		body := whole[4:]
		for n := 1; n < len(body); n++ { // a frame that says it is whole
			if _, ok := m.(*Data); ok {
				break
			}
			if got, err := decode(body[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%T of %d bytes: got %+v, %v", m, n, got, err)
			}
		}
		if _, ok := m.(*Data); !ok {
			if got, err := decode(append(bytes.Clone(body), 0)); !errors.Is(err, ErrMalformed) {
				t.Errorf("%T with a byte too many: got %+v, %v", m, got, err)
			}
		}
	}
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	file := entries()[1]
	change := func(do func(*tree.Entry)) Message {
		e := file
		do(&e)
		return &Put{e}
	}
	for name, m := range map[string]Message{
		"path that leads up":       &Ask{"a/../b"},
		"absolute path":            &Remove{"/etc"},
		"empty path":               &Keep{""},
		"path with a NUL":          &Sign{"a\x00"},
		"child with a slash":       &Children{Path: ".", Children: []tree.Child{{Name: "a/b", Kind: tree.File}}},
		"child called .":           &Children{Path: ".", Children: []tree.Child{{Name: ".", Kind: tree.File}}},
		"children out of order":    &Children{Path: ".", Children: []tree.Child{{Name: "b", Kind: tree.File}, {Name: "a", Kind: tree.File}}},
		"child twice":              &Children{Path: ".", Children: []tree.Child{{Name: "b", Kind: tree.File}, {Name: "b", Kind: tree.File}}},
		"kind 0":                   change(func(e *tree.Entry) { e.Kind = 0 }),
		"kind 4":                   change(func(e *tree.Entry) { e.Kind = 4 }),
		"negative size":            change(func(e *tree.Entry) { e.Size = -1 }),
		"mode beyond":              change(func(e *tree.Entry) { e.Mode = 0o10000 }),
		"link that leads up":       change(func(e *tree.Entry) { e.Link = "../x" }),
		"too much data":            &Data{make([]byte, MaxData+1)},
		"taken from somewhere bad": &Take{"..", file},
	} {
		if got, err := NewReader(bytes.NewReader(frame(m))).Read(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	for name, b := range map[string][]byte{"empty frame": {0, 0, 0, 0}, "huge frame": {0xff, 0, 0, 0, 1}, "kind 0": {0, 0, 0, 1, 0}, "kind 99": {0, 0, 0, 1, 99}} {
		if got, err := NewReader(bytes.NewReader(b)).Read(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if err := NewWriter(io.Discard).Write(&Refusal{strings.Repeat("x", MaxFrame)}); err == nil {
		t.Error("a message longer than a frame was written")
	}
}

// FuzzRead: whatever comes is refused, or is a message that is written just so again.
func FuzzRead(f *testing.F) {
	for _, m := range messages() {
		if b := frame(m); len(b) < 2000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := NewReader(bytes.NewReader(b)).Read()
		if err != nil {
			return
		}
		again, err := NewReader(bytes.NewReader(frame(m))).Read()
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("%+v was read again as %+v, %v", m, again, err)
		}
	})
}
