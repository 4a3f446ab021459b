//go:build linux

package apply

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// behind writes behind its caller, who decrypts and hashes meanwhile. It holds no more than a few buffers.
type behind struct {
	full, free chan []byte
	dead       chan struct{} // closed when writing has ended
	g          errgroup.Group
}

const (
	// behindFrom is the size in bytes from which on a file is written behind.
	behindFrom    = 1 << 20
	behindBuffers = 4
	behindBuffer  = 256 << 10
)

func writeBehind(w io.Writer) *behind {
	b := &behind{full: make(chan []byte, behindBuffers), free: make(chan []byte, behindBuffers), dead: make(chan struct{})}
	for range behindBuffers {
		b.free <- make([]byte, 0, behindBuffer)
	}
	b.g.Go(func() error {
		defer close(b.dead)
		for buf := range b.full {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			b.free <- buf[:0]
		}
		return nil
	})
	return b
}

// errBehind stands for the error that end returns.
var errBehind = errors.New("writing has failed")

func (b *behind) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		select {
		case buf := <-b.free:
			part := p[:min(len(p), cap(buf))]
			b.full <- append(buf, part...)
			n, p = n+len(part), p[len(part):]
		case <-b.dead:
			return n, errBehind
		}
	}
	return n, nil
}

// end waits until everything is written.
func (b *behind) end() error {
	close(b.full)
	return b.g.Wait()
}

// early is a file of which the kernel begins to write out what it has got, so that little is left for the sync.
type early struct {
	*os.File
	begun, at int64
}

const earlyBytes = 8 << 20

func (e *early) WriteAt(p []byte, at int64) (int, error) {
	n, err := e.File.WriteAt(p, at)
	e.at = max(e.at, at+int64(n))
	if err == nil && e.at-e.begun >= earlyBytes {
		// sync_file_range(2) only asks: whether all is durable is the sync's to find out.
		_ = unix.SyncFileRange(int(e.File.Fd()), e.begun, e.at-e.begun, unix.SYNC_FILE_RANGE_WRITE)
		e.begun = e.at
	}
	return n, err
}
