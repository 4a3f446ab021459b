//go:build linux

package tree

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/zeebo/blake3"
)

// sample is an index with one of everything.
func sample(t testing.TB) []byte {
	t.Helper()
	root := t.TempDir()
	write(t, root+"/dir/file", "hello")
	for _, err := range []error{os.Link(root+"/dir/file", root+"/again"), os.Symlink("x", root+"/link"), os.Mkdir(root+"/empty", 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tree := scan(t, scanner(t, root, Options{}), nil)
	tree.at("again").extra().xattrs = []Xattr{{"user.a", "1"}, {"user.b", ""}}
	var b bytes.Buffer
	if err := tree.write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestADamagedIndexIsRefused(t *testing.T) {
	good := sample(t)
	if _, err := read(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, flip := range []byte{1, 0x80, 0xff} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			if _, err := read(bytes.NewReader(bad)); !errors.Is(err, ErrDamaged) {
				t.Errorf("byte %d changed: got %v", i, err)
			}
		}
		if _, err := read(bytes.NewReader(good[:i])); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut after %d bytes: got %v", i, err)
		}
	}
	if _, err := read(bytes.NewReader(append(good, 0))); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte more: got %v", err)
	}
}

func TestSaveReplacesAndLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir + "/index"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	write(t, dir+"/index", "something else")
	if _, err := Load(dir + "/index"); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if err := newTree().Save(dir + "/index"); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir + "/index"); err != nil {
		t.Error(err)
	}
	if err := newTree().Save(dir + "/missing/index"); err == nil {
		t.Error("saved into a directory that is not there")
	}
	if left := mustList(t, dir); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

// FuzzIndex: whatever is accepted can be written and read again, and is the same tree.
func FuzzIndex(f *testing.F) {
	f.Add(sample(f))
	f.Add([]byte(magic))
	var b bytes.Buffer
	if err := newTree().write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		// The sum keeps a fuzzer out, so it is put right.
		for _, in := range [][]byte{in, summed(in)} {
			tree, err := read(bytes.NewReader(in))
			if err != nil {
				continue
			}
			var out bytes.Buffer
			if err := tree.write(&out); err != nil {
				t.Fatal(err)
			}
			again, err := read(bytes.NewReader(out.Bytes()))
			if err != nil || again.Digest() != tree.Digest() {
				t.Fatalf("what was written cannot be read: %v", err)
			}
		}
	})
}

func summed(b []byte) []byte {
	body := b[:max(0, len(b)-32)]
	sum := blake3.Sum256(body)
	return append(bytes.Clone(body), sum[:]...)
}
