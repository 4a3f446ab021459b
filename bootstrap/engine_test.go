package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/config"
	"understudy/bootstrap/progress"
)

func testEngine(t *testing.T) *engine {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	e := &engine{base: log, log: log, notify: notifier{send: func(string) {}}, at: func(string) {}, bootID: "b",
		path: filepath.Join(t.TempDir(), "bootstrap.json"), record: progress.Record{Version: progress.Version, Attempt: 1}}
	e.wait.retry = config.Retry{First: 100 * time.Millisecond, Most: 5 * time.Second}
	return e
}

func TestStepsGoBackToWhatTurnedOutBroken(t *testing.T) {
	e := testEngine(t)
	e.wait.retry = config.Retry{First: time.Microsecond, Most: time.Microsecond}
	var ran []string
	broken := 2
	mk := func(name string, do func() error) step {
		return step{name: name, lasts: forIncarnation, limit: time.Second, do: func(context.Context, *boot) (string, error) {
			ran = append(ran, name)
			return name, do()
		}}
	}
	ok := func() error { return nil }
	steps := []step{mk("a", ok), mk("b", ok), mk("c", func() error {
		if broken--; broken >= 0 {
			return &failure{code: exitNoSource, err: errors.New("damaged"), back: "b"}
		}
		return nil
	}), mk("d", ok)}
	if err := e.run(t.Context(), &boot{engine: e}, steps); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(ran, ""); got != "abcbcbcd" {
		t.Errorf("got %s, want abcbcbcd", got)
	}
	broken, ran = 100, nil
	e.record.Steps = nil
	err := e.run(t.Context(), &boot{engine: e}, steps)
	if f, ok := errors.AsType[*failure](err); !ok || f.code != exitNoSource {
		t.Errorf("got %v, want an end", err)
	}
	if got := strings.Join(ran, ""); got != "abc"+strings.Repeat("bc", maxBack) {
		t.Errorf("got %s, want %d times back", got, maxBack)
	}
}

func TestPausesGrowToTheirCapAndAreNeverTight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := waiter{retry: config.Retry{First: 100 * time.Millisecond, Most: 5 * time.Second}}
		for n := range 20 {
			began := time.Now()
			if fresh, ok := w.pause(t.Context(), n+1, 0); fresh || !ok {
				t.Fatalf("got fresh %v, ok %v", fresh, ok)
			}
			most := min(w.retry.First<<n, w.retry.Most)
			if d := time.Since(began); d < most/2 || d > most {
				t.Errorf("pause %d: got %v, want %v to %v", n+1, d, most/2, most)
			}
		}
		began := time.Now()
		w.pause(t.Context(), 100, time.Second)
		if d := time.Since(began); d > time.Second {
			t.Errorf("capped pause: got %v, want at most 1s", d)
		}
	})
}

func TestNewsOfTheNetworkCutPausesShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		news := make(chan struct{}, 1)
		w := waiter{retry: config.Retry{First: 100 * time.Millisecond, Most: time.Minute}, news: news}
		timer := time.AfterFunc(time.Second, func() { news <- struct{}{} })
		defer timer.Stop()
		began := time.Now()
		if fresh, ok := w.pause(t.Context(), 100, 0); !fresh || !ok || time.Since(began) != time.Second {
			t.Errorf("got fresh %v, ok %v after %v; want fresh news after 1s", fresh, ok, time.Since(began))
		}
		news <- struct{}{} // news all the time are no reason for a tight loop
		began = time.Now()
		if w.pause(t.Context(), 1, 0); time.Since(began) < 50*time.Millisecond {
			t.Errorf("got a pause of %v, want at least half of the first", time.Since(began))
		}
	})
}

func TestKernelTellsAboutTheNetworkUntilTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	if news := watchNetwork(ctx, &g); news == nil {
		t.Error("the kernel refuses rtnetlink(7)")
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestHostsFileKeepsEverythingElse(t *testing.T) {
	for _, tt := range [][2]string{
		{"", "127.0.1.1 web1\n"},
		{"127.0.0.1 localhost\n", "127.0.0.1 localhost\n127.0.1.1 web1\n"},
		{"# mine\n127.0.1.1 old old.example\n::1 localhost\n127.0.1.1 twice\n", "# mine\n127.0.1.1 web1\n::1 localhost\n"},
	} {
		if got := withHost(tt[0], "web1"); got != tt[1] {
			t.Errorf("%q: got %q, want %q", tt[0], got, tt[1])
		}
		if again := withHost(withHost(tt[0], "web1"), "web1"); again != tt[1] {
			t.Errorf("%q: doing it twice gives %q", tt[0], again)
		}
	}
	if got := withHost("", "web1.blog.example"); got != "127.0.1.1 web1.blog.example web1\n" {
		t.Errorf("got %q", got)
	}
}

// pieces reads in the given sizes.
type pieces struct {
	data  []byte
	sizes func() int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.sizes())], p.data)
	p.data = p.data[n:]
	return n, nil
}

func TestTextIsFoundWhereverTheReadsAreCut(t *testing.T) {
	const want = "Package: blog"
	for at := range positions() {
		data := append(bytes.Repeat([]byte("Package: "), at), want...)
		data = append(data, "\nVersion: 1\n"...)
		r := rand.New(rand.NewPCG(1, uint64(at)))
		found, err := contains(&pieces{data, func() int { return 1 + r.IntN(40_000) }}, []byte(want))
		if err != nil || !found {
			t.Fatalf("behind %d words: got %v, %v; want it found", at, found, err)
		}
		found, err = contains(&pieces{bytes.ReplaceAll(data, []byte("blog"), []byte("blo9")), func() int { return 1 + r.IntN(5000) }}, []byte(want))
		if err != nil || found {
			t.Fatalf("behind %d words: got %v, %v; want it not found", at, found, err)
		}
	}
	if found, err := contains(strings.NewReader(""), nil); err != nil || !found {
		t.Errorf("nothing in nothing: got %v, %v", found, err)
	}
}

// positions lie round the borders of the buffer.
func positions() iter.Seq[int] {
	return slices.Values([]int{0, 1, 2, 3638, 3639, 3640, 3641, 3642, 7280, 7281, 7282, 7283, 20_000})
}
