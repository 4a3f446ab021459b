package objectstore

import (
	"crypto/md5"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/johannesboyne/gofakes3"
)

// disk is a gofakes3.Backend. Every body is a file with a number for a name, which never changes. gofakes3 knows errors by
// their types and does not unwrap them, so its own are returned as they are.
type disk struct {
	dir string

	mu      sync.Mutex
	buckets map[string]*bucket
	next    uint64 // number of the next file
}

type bucket struct {
	created time.Time
	keys    []string // sorted
	objects map[string]object
}

type object struct {
	file     string
	size     int64
	hash     []byte // MD5, which S3 calls the ETag
	meta     map[string]string
	modified time.Time
}

func newDisk(dir string) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("object store: %w", err)
	}
	return &disk{dir: dir, buckets: map[string]*bucket{}}, nil
}

// in runs f on a bucket, alone.
func (d *disk) in(name string, f func(*bucket) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.buckets[name]
	if !ok {
		return gofakes3.BucketNotFound(name)
	}
	return f(b)
}

func (d *disk) ListBuckets() ([]gofakes3.BucketInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []gofakes3.BucketInfo
	for _, name := range slices.Sorted(maps.Keys(d.buckets)) {
		all = append(all, gofakes3.BucketInfo{Name: name, CreationDate: gofakes3.NewContentTime(d.buckets[name].created)})
	}
	return all, nil
}

func (d *disk) CreateBucket(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.buckets[name]; ok {
		return gofakes3.ResourceError(gofakes3.ErrBucketAlreadyExists, name)
	}
	d.buckets[name] = &bucket{created: time.Now(), objects: map[string]object{}}
	return nil
}

func (d *disk) BucketExists(name string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.buckets[name]
	return ok, nil
}

func (d *disk) DeleteBucket(name string) error {
	return d.in(name, func(b *bucket) error {
		if len(b.keys) > 0 {
			return gofakes3.ResourceError(gofakes3.ErrBucketNotEmpty, name)
		}
		delete(d.buckets, name)
		return nil
	})
}

func (d *disk) ForceDeleteBucket(name string) error {
	var files []string
	err := d.in(name, func(b *bucket) error {
		for _, o := range b.objects {
			files = append(files, o.file)
		}
		delete(d.buckets, name)
		return nil
	})
	remove(files...)
	return err
}

// remove deletes files that no object names any more. What cannot be deleted goes with the directory, at the cloud's end.
func remove(files ...string) {
	for _, f := range files {
		_ = os.Remove(f)
	}
}

func (d *disk) ListBucket(name string, prefix *gofakes3.Prefix, page gofakes3.ListBucketPage) (*gofakes3.ObjectList, error) {
	if prefix == nil {
		prefix = &gofakes3.Prefix{}
	}
	var list *gofakes3.ObjectList
	err := d.in(name, func(b *bucket) error {
		list = b.list(*prefix, page)
		return nil
	})
	return list, err
}

// list returns one page of the keys behind the page's marker, those with the delimiter put together.
func (b *bucket) list(prefix gofakes3.Prefix, page gofakes3.ListBucketPage) *gofakes3.ObjectList {
	list := gofakes3.NewObjectList()
	// The keys with the prefix lie beside each other, so no others are looked at.
	from, exact := slices.BinarySearch(b.keys, max(page.Marker, prefix.Prefix))
	if exact && page.HasMarker && page.Marker >= prefix.Prefix {
		from++ // the marker is the last one that the asker knows
	}
	next, last := "", ""
	for _, key := range b.keys[from:] {
		if !strings.HasPrefix(key, prefix.Prefix) {
			break
		}
		group := groupOf(key, prefix)
		if group != "" && (group == last || page.HasMarker && strings.HasPrefix(page.Marker, group)) {
			continue // listed already, on this page or the one before
		}
		if page.MaxKeys > 0 && int64(len(list.Contents)+len(list.CommonPrefixes)) == page.MaxKeys {
			list.IsTruncated, list.NextMarker = true, next
			break
		}
		if next, last = key, group; group != "" {
			list.AddPrefix(group)
			continue
		}
		o := b.objects[key]
		list.Add(&gofakes3.Content{Key: key, LastModified: gofakes3.NewContentTime(o.modified), ETag: gofakes3.FormatETag(o.hash), Size: o.size})
	}
	return list
}

// groupOf is the key up to the first delimiter behind the prefix; empty if there is none.
func groupOf(key string, prefix gofakes3.Prefix) string {
	if !prefix.HasDelimiter {
		return ""
	}
	head, _, ok := strings.Cut(key[len(prefix.Prefix):], prefix.Delimiter)
	if !ok {
		return ""
	}
	return prefix.Prefix + head + prefix.Delimiter
}

func (d *disk) HeadObject(name, key string) (*gofakes3.Object, error) {
	var o object
	err := d.in(name, func(b *bucket) (err error) {
		o, err = b.object(key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return o.answer(key, nil, io.NopCloser(strings.NewReader(""))), nil
}

func (b *bucket) object(key string) (object, error) {
	o, ok := b.objects[key]
	if !ok {
		return object{}, gofakes3.KeyNotFound(key)
	}
	return o, nil
}

func (o object) answer(key string, rnge *gofakes3.ObjectRange, body io.ReadCloser) *gofakes3.Object {
	return &gofakes3.Object{Name: key, Metadata: maps.Clone(o.meta), Size: o.size, Hash: o.hash, Range: rnge, Contents: body}
}

func (d *disk) GetObject(name, key string, asked *gofakes3.ObjectRangeRequest) (*gofakes3.Object, error) {
	var o object
	var f *os.File
	err := d.in(name, func(b *bucket) (err error) {
		if o, err = b.object(key); err != nil {
			return err
		}
		f, err = os.Open(o.file) // under the lock: then it may be replaced while it is read
		return err
	})
	if err != nil {
		return nil, err
	}
	rnge, err := asked.Range(o.size)
	if err != nil {
		_ = f.Close() // it was only read
		return nil, err
	}
	from, n := int64(0), o.size
	if rnge != nil {
		from, n = rnge.Start, rnge.Length
	}
	return o.answer(key, rnge, section{io.NewSectionReader(f, from, n), f}), nil
}

type section struct {
	io.Reader
	io.Closer
}

func (d *disk) PutObject(name, key string, meta map[string]string, input io.Reader, size int64, conditions *gofakes3.PutConditions) (gofakes3.PutObjectResult, error) {
	o, err := d.write(input, size)
	if err != nil {
		return gofakes3.PutObjectResult{}, err
	}
	o.meta = meta
	unused := o.file
	err = d.in(name, func(b *bucket) error {
		before, exists := b.objects[key]
		if conditions != nil {
			if err := gofakes3.CheckPutConditions(conditions, &gofakes3.ConditionalObjectInfo{Exists: exists, Hash: before.hash}); err != nil {
				return err
			}
		}
		o.modified = time.Now()
		b.objects[key] = o
		unused = before.file
		if at, found := slices.BinarySearch(b.keys, key); !found {
			b.keys = slices.Insert(b.keys, at, key)
		}
		return nil
	})
	if unused != "" {
		remove(unused)
	}
	return gofakes3.PutObjectResult{}, err
}

// write puts a body into a file of its own. It is not synced: all of it goes when the cloud does.
func (d *disk) write(input io.Reader, size int64) (o object, err error) {
	d.mu.Lock()
	d.next++
	o.file = filepath.Join(d.dir, strconv.FormatUint(d.next, 10))
	d.mu.Unlock()
	f, err := os.OpenFile(o.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return object{}, err
	}
	sum := md5.New()
	o.size, err = io.Copy(io.MultiWriter(f, sum), input)
	if err == nil && o.size != size {
		err = gofakes3.ErrIncompleteBody
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		remove(o.file)
		return object{}, err
	}
	o.hash = sum.Sum(nil)
	return o, nil
}

func (d *disk) DeleteObject(name, key string) (gofakes3.ObjectDeleteResult, error) {
	var file string
	err := d.in(name, func(b *bucket) error {
		if at, found := slices.BinarySearch(b.keys, key); found {
			file = b.objects[key].file
			delete(b.objects, key)
			b.keys = slices.Delete(b.keys, at, at+1)
		}
		return nil
	})
	if file != "" {
		remove(file)
	}
	return gofakes3.ObjectDeleteResult{}, err
}

func (d *disk) DeleteMulti(name string, keys ...string) (gofakes3.MultiDeleteResult, error) {
	var all gofakes3.MultiDeleteResult
	for _, key := range keys {
		if _, err := d.DeleteObject(name, key); err != nil {
			all.Error = append(all.Error, gofakes3.ErrorResultFromError(err))
			continue
		}
		all.Deleted = append(all.Deleted, gofakes3.ObjectID{Key: key})
	}
	return all, nil
}

func (d *disk) CopyObject(fromBucket, fromKey, toBucket, toKey string, meta map[string]string) (gofakes3.CopyObjectResult, error) {
	return gofakes3.CopyObject(d, fromBucket, fromKey, toBucket, toKey, meta)
}
