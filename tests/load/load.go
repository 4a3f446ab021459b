// Package load fetches one page at a steady rate, from new and from kept-alive connections, and tells what a reader would have
// noticed: requests that got no answer, the longest wait for one, the longest time in which none came.
package load

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Patience is how long a request may take before it counts as failed.
const Patience = 5 * time.Second

// Config says what to fetch, and how often.
type Config struct {
	URL  string
	Rate int // requests a second; every other one on a connection of its own
	// Dial reaches the address of URL, perhaps from inside a namespace.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Result is what happened between Start and Stop.
type Result struct {
	Requests int
	Failed   int
	// Errors counts the failures by their text.
	Errors map[string]int
	// Longest is the longest wait for an answer, Gap the longest time between two answers.
	Longest, Gap time.Duration
	// Answered counts answers by the header X-Served-By.
	Answered map[string]int
}

// String is a line for a log.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests, %d failed, longest answer %v, longest gap %v", r.Requests, r.Failed, r.Longest.Round(time.Millisecond), r.Gap.Round(time.Millisecond))
	for _, e := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(&b, "; %d × %s", r.Errors[e], e)
	}
	return b.String()
}

// Load is a running load.
type Load struct {
	cfg    Config
	cancel context.CancelFunc
	all    sync.WaitGroup // every request and the pacer
	fresh  *http.Client
	kept   *http.Client

	mu     sync.Mutex
	last   time.Time // the newest answer
	result Result
}

// Start begins to fetch. The caller must Stop it.
func Start(ctx context.Context, cfg Config) *Load {
	client := func(keepAlive bool) *http.Client {
		return &http.Client{Timeout: Patience, Transport: &http.Transport{
			DialContext: cfg.Dial, DisableKeepAlives: !keepAlive, MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second,
		}}
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{cfg: cfg, cancel: cancel, fresh: client(false), kept: client(true), last: time.Now()}
	l.result.Errors, l.result.Answered = map[string]int{}, map[string]int{}
	l.all.Go(func() { l.pace(ctx) })
	return l
}

// Stop lets what is under way end and returns what happened.
func (l *Load) Stop() Result {
	l.cancel()
	l.all.Wait()
	l.kept.CloseIdleConnections()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.Gap = max(l.result.Gap, time.Since(l.last))
	return l.result
}

func (l *Load) pace(ctx context.Context) {
	tick := time.NewTicker(time.Second / time.Duration(l.cfg.Rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		client := l.fresh
		if n%2 == 1 {
			client = l.kept
		}
		l.all.Go(func() { l.fetch(client) })
	}
}

// fetch does not end with the load: a request that was sent is waited for.
func (l *Load) fetch(client *http.Client) {
	began := time.Now()
	by, err := get(client, l.cfg.URL)
	ended := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.Requests++
	if err != nil {
		l.result.Failed++
		l.result.Errors[err.Error()]++
		return
	}
	l.result.Answered[by]++
	l.result.Longest = max(l.result.Longest, ended.Sub(began))
	l.result.Gap = max(l.result.Gap, ended.Sub(l.last))
	l.last = ended
}

func get(client *http.Client, url string) (servedBy string, err error) {
	res, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", res.StatusCode)
	}
	return res.Header.Get("X-Served-By"), nil
}
