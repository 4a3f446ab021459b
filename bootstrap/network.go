package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"understudy/bootstrap/config"
)

// waiter paces the tries of everything that can be tried again. There is one policy: pauses double from
// First to Most, half of each is chance, and when the kernel reports a new address or route the pause ends
// and the next one is short again, so that a network that comes up late costs nothing more than its lateness.
type waiter struct {
	retry config.Retry
	news  <-chan struct{} // nil: nobody tells
}

// pause waits before try number n+1, n from 1, and at most for most, unless that is zero. ok is false when
// ctx has ended; fresh says that the network has changed, so that counting starts again.
func (w waiter) pause(ctx context.Context, n int, most time.Duration) (fresh, ok bool) {
	if most == 0 || most > w.retry.Most {
		most = w.retry.Most
	}
	d := w.retry.First
	for i := 1; i < n && d < most; i++ {
		d *= 2
	}
	d = min(d, most)
	d = d/2 + rand.N(d/2+1)
	least := min(d, w.retry.First/2)
	if !sleep(ctx, least) { // also when the news never end, this is no tight loop
		return false, false
	}
	timer := time.NewTimer(d - least)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false, true
	case <-w.news:
		return true, true
	case <-ctx.Done():
		return false, false
	}
}

// sleep waits for d and says whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// watchNetwork reports changes of addresses and routes until ctx ends (rtnetlink(7)). Several changes that
// nobody has looked at yet are one report. Where the kernel refuses, no report ever comes and pauses run their
// full length.
func watchNetwork(ctx context.Context, g *errgroup.Group) <-chan struct{} {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil
	}
	groups := uint32(unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil
	}
	f := os.NewFile(uintptr(fd), "rtnetlink") // non-blocking, so Close ends a Read
	news := make(chan struct{}, 1)
	g.Go(func() error {
		<-ctx.Done()
		return f.Close()
	})
	g.Go(func() error {
		buf := make([]byte, 16<<10)
		for {
			_, err := f.Read(buf)
			if err != nil && !errors.Is(err, unix.ENOBUFS) { // ENOBUFS: reports were lost, which is news too
				return nil
			}
			select {
			case news <- struct{}{}:
			default:
			}
		}
	})
	return news
}
