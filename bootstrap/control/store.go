package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/hash"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// maxCommit and maxTree bound the objects that are read whole before anything about them is known.
const (
	maxCommit = 1 << 20
	maxTree   = 16 << 20
)

// store is one bare repository on disk, written by us and read through go-git. It holds packs only.
type store struct {
	dir     string
	objects *filesystem.Storage
}

// openStore reads an existing repository. Close it.
func openStore(dir string) *store {
	return openWith(dir, osfs.New(dir), filesystem.Options{KeepDescriptors: true})
}

// openServed is openStore for objects that are passed on and never held. A symbolic link is not resolved now: it is the kernel's to an
// open directory, which may be renamed.
func openServed(dir string) *store {
	files, err := osfs.New("/").Chroot(dir) // osfs.New(dir) would resolve it
	if err != nil {
		panic(fmt.Sprintf("%s: %v", dir, err)) // only a path that leaves the root fails
	}
	return openWith(dir, files, filesystem.Options{KeepDescriptors: true, LargeObjectThreshold: largeObject})
}

func openWith(dir string, files billy.Filesystem, o filesystem.Options) *store {
	return &store{dir, filesystem.NewStorageWithOptions(files, cache.NewObjectLRU(16*cache.MiByte), o)}
}

func (s *store) close() { s.objects.Close() }

// refresh makes packs that arrived since visible.
func (s *store) refresh() {
	s.close()
	*s = *openStore(s.dir)
}

// initStore makes an empty bare repository in an existing empty directory, readable by any git.
func initStore(dir, branch string) error {
	for _, d := range []string{"objects/info", "objects/pack", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := writeDurably(filepath.Join(dir, "config"),
		[]byte("[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n")); err != nil {
		return err
	}
	return writeDurably(filepath.Join(dir, "HEAD"), []byte("ref: refs/heads/"+branch+"\n"))
}

// syncTree makes the directories that initStore and a first fetch filled durable.
func (s *store) syncTree() error {
	return filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
}

// tip is the commit that a branch points to; zero when there is none or the file is not readable as one.
func (s *store) tip(branch string) plumbing.Hash {
	data, err := os.ReadFile(filepath.Join(s.dir, "refs", "heads", filepath.FromSlash(branch)))
	text := strings.TrimSuffix(string(data), "\n")
	if err != nil || !isHash(text) {
		return plumbing.ZeroHash
	}
	return plumbing.NewHash(text)
}

// setTip is the last step of a fetch: what the branch points to is whole and durable.
func (s *store) setTip(branch string, h plumbing.Hash) error {
	path := filepath.Join(s.dir, "refs", "heads", filepath.FromSlash(branch))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return writeDurably(path, []byte(h.String()+"\n"))
}

// shallow returns the commits whose parents were left out on purpose.
func (s *store) shallow() ([]plumbing.Hash, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, "shallow"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var hashes []plumbing.Hash
	for line := range strings.Lines(string(data)) {
		text := strings.TrimSuffix(line, "\n")
		if !isHash(text) {
			return nil, fmt.Errorf("%w: file shallow holds %q", ErrBroken, text)
		}
		hashes = append(hashes, plumbing.NewHash(text))
	}
	return hashes, nil
}

func (s *store) setShallow(hashes []plumbing.Hash) error {
	plumbing.HashesSort(hashes)
	var text bytes.Buffer
	for _, h := range slices.Compact(hashes) {
		fmt.Fprintln(&text, h)
	}
	path := filepath.Join(s.dir, "shallow")
	if text.Len() > 0 {
		return writeDurably(path, text.Bytes())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// has says whether an object is in a pack, without reading it.
func (s *store) has(h plumbing.Hash) (ok bool, err error) {
	defer contain(&err)
	err = s.objects.HasEncodedObject(h)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return false, nil
	}
	return err == nil, broken(err)
}

// read returns an object after checking its hash, so that neither a damaged disk nor a lying source can
// pass something else off as it. Errors are ErrBroken, ErrTooLarge, or of the file system.
func (s *store) read(h plumbing.Hash, t plumbing.ObjectType, limit int64) (data []byte, err error) {
	defer contain(&err)
	size, err := s.objects.EncodedObjectSize(h)
	if err != nil {
		return nil, broken(fmt.Errorf("%v %s: %w", t, h, err))
	}
	if size > limit {
		return nil, fmt.Errorf("%v %s: %w: %d bytes, at most %d are accepted", t, h, ErrTooLarge, size, limit)
	}
	object, err := s.objects.EncodedObject(t, h)
	if err != nil {
		return nil, broken(fmt.Errorf("%v %s: %w", t, h, err))
	}
	r, err := object.Reader()
	if err != nil {
		return nil, broken(fmt.Errorf("%v %s: %w", t, h, err))
	}
	defer r.Close()
	if data, err = io.ReadAll(io.LimitReader(r, limit+1)); err != nil {
		return nil, broken(fmt.Errorf("%v %s: %w", t, h, err))
	}
	if plumbing.ComputeHash(t, data) != h {
		return nil, fmt.Errorf("%w: %v %s has another content", ErrBroken, t, h)
	}
	return data, nil
}

func (s *store) commit(h plumbing.Hash) (parsedCommit, []byte, error) {
	raw, err := s.read(h, plumbing.CommitObject, maxCommit)
	if err != nil {
		return parsedCommit{}, nil, err
	}
	c, err := parseCommit(raw)
	if err != nil {
		return parsedCommit{}, nil, fmt.Errorf("commit %s: %w", h, err)
	}
	return c, raw, nil
}

// broken marks errors that tell of the repository's content rather than of the machine.
func broken(err error) error {
	if err == nil || errors.Is(err, ErrBroken) {
		return err
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok && !errors.Is(p, fs.ErrNotExist) {
		return err // EIO, EMFILE, EACCES: cloning anew would not help
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}

// contain turns a panic of go-git's decoders on damaged data into ErrBroken. Otherwise a torn pack
// would stop every later start at the same place, when throwing it away is all that is needed.
func contain(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: decoder panicked: %v", ErrBroken, p)
	}
}

// receive writes the pack that stream produces, proves that it is whole, and makes it part of the
// repository. Until its very last rename nothing of it is visible.
func (s *store) receive(limit int64, stream func(io.Writer) error) error {
	dir := filepath.Join(s.dir, "objects", "pack")
	f, err := os.CreateTemp(dir, tempPrefix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := stream(&bounded{w: f, left: limit}); err != nil {
		return err
	}
	if err := checkTrailer(f); err != nil {
		return err
	}
	index, name, err := indexPack(f)
	if err != nil {
		return err
	}
	if err := f.Chmod(0o444); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	base := filepath.Join(dir, "pack-"+name.String())
	if err := writeDurably(base+".idx", index); err != nil { // no reader looks at an index without a pack
		return err
	}
	if err := os.Rename(f.Name(), base+".pack"); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	s.refresh()
	return nil
}

// checkTrailer compares a pack with the checksum at its end (gitformat-pack(5)), which also refuses
// anything that follows it. go-git's parser does neither.
func checkTrailer(f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size < 12+hash.Size {
		return fmt.Errorf("%w: the pack ends after %d bytes", io.ErrUnexpectedEOF, size)
	}
	h := hash.New(hash.CryptoType)
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size-hash.Size)); err != nil {
		return err
	}
	trailer := make([]byte, hash.Size)
	if _, err := f.ReadAt(trailer, size-hash.Size); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), trailer) {
		return fmt.Errorf("%w: the pack does not match its checksum", io.ErrUnexpectedEOF)
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// indexPack computes the hash of every object in a pack, and the index that tells where each one is.
func indexPack(f *os.File) (index []byte, name plumbing.Hash, err error) {
	defer contain(&err)
	w := new(idxfile.Writer)
	parser, err := packfile.NewParser(packfile.NewScanner(f), w)
	if err != nil {
		return nil, name, err
	}
	if name, err = parser.Parse(); err != nil {
		return nil, name, fmt.Errorf("%w: pack: %w", ErrBroken, err)
	}
	idx, err := w.Index()
	if err != nil {
		return nil, name, fmt.Errorf("%w: pack: %w", ErrBroken, err)
	}
	var out bytes.Buffer
	if _, err := idxfile.NewEncoder(&out).Encode(idx); err != nil {
		return nil, name, err
	}
	return out.Bytes(), name, nil
}

// bounded is a writer that refuses to write more than was agreed.
type bounded struct {
	w    io.Writer
	left int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, fmt.Errorf("%w: the fetch brings more bytes than the limit for one", ErrTooLarge)
	}
	return b.w.Write(p)
}
