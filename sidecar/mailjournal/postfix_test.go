package mailjournal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"understudy/bootstrap/command"
)

// logOf is a journalctl that prints the lines it is given, as Postfix 3.10 writes them.
type logOf struct {
	lines chan [2]string // program, message
	args  chan []string
}

func (l logOf) Run(ctx context.Context, c command.Cmd) (command.Result, error) {
	l.args <- c.Args
	for {
		select {
		case line := <-l.lines:
			if line[0] == "end" {
				return command.Result{ExitCode: 1}, nil
			}
			text, err := json.Marshal(map[string]string{"SYSLOG_IDENTIFIER": "postfix/" + line[0], "MESSAGE": line[1]})
			if err != nil {
				return command.Result{}, err
			}
			c.OnLine(command.Stdout, string(text))
		case <-ctx.Done():
			return command.Result{}, ctx.Err()
		}
	}
}

// book is a second holder that notes what is closed, and in which way.
type book struct {
	secondFunc
	mu     sync.Mutex
	closed []string
	fail   int
}

func (b *book) Finish(_ context.Context, id ID, how How) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail > 0 {
		b.fail--
		return errors.New("the holder is away")
	}
	b.closed = append(b.closed, id.String()+" "+how.String())
	return nil
}

func TestAnEntryIsClosedWhenPostfixAndTheMirrorAreDoneWithIt(t *testing.T) {
	j := open(t, options(t.TempDir()))
	defer finish(t, j)
	local, relayed, bounced, deferred, reinjected := entry("l"), entry("r"), entry("b"), entry("d"), entry("i")
	local.Queue, relayed.Queue, bounced.Queue, deferred.Queue, reinjected.Queue = "4dLocal1", "4dRelay1", "4dBounce", "4dDefer1", ""
	for _, e := range []Entry{local, relayed, bounced, deferred, reinjected} {
		appendTo(t, j, e)
	}
	second := &book{}
	l := logOf{make(chan [2]string), make(chan []string, 10)}
	barriers := 0
	f := &Follower{Closing: Closing{j, second}, Runner: l, Again: time.Millisecond, Log: slog.New(slog.DiscardHandler),
		Barrier: func(context.Context) error {
			if barriers++; barriers == 1 {
				return errors.New("the mirror is away")
			}
			if _, err := j.Read(local.ID); barriers == 2 && err != nil {
				t.Errorf("an entry was closed while the mirror was away: %v", err)
			}
			if barriers == 2 {
				second.mu.Lock()
				defer second.mu.Unlock()
				second.fail = 1
			}
			return nil
		}}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return f.Run(ctx) })
	for _, line := range [][2]string{
		{"smtpd", "connect from unknown[192.0.2.1]"},
		{"cleanup", "4dReInj1: info: header " + Header + ": " + reinjected.ID.String() + " from localhost[127.0.0.1]; from=<a@b> to=<c@d> proto=ESMTP helo=<x>"},
		{"cleanup", "4dForged: message-id=<x info: header " + Header + ": " + deferred.ID.String() + " from x>"},
		{"qmgr", "4dForged: removed"},
		{"lmtp", "4dLocal1: to=<alice@blog.example>, relay=mail1[private/dovecot-lmtp], delay=0.1, dsn=2.0.0, status=sent (250 2.0.0 Saved)"},
		{"smtp", "4dLocal1: to=<c@d>, relay=r[192.0.2.2]:25, dsn=2.0.0, status=sent (250 ok)"},
		{"qmgr", "4dLocal1: removed"},
		{"smtp", "4dRelay1: to=<c@d>, relay=r[192.0.2.2]:25, dsn=2.0.0, status=sent (250 ok)"},
		{"end", ""}, // and journalctl is started anew
		{"qmgr", "4dRelay1: removed"},
		{"smtp", "4dBounce: to=<c@d>, relay=r[192.0.2.2]:25, dsn=5.0.0, status=bounced (no)"},
		{"qmgr", "4dBounce: removed"},
		{"smtp", "4dDefer1: to=<c@d>, relay=none, dsn=4.0.0, status=deferred (later)"},
		{"lmtp", "4dReInj1: to=<alice@blog.example>, relay=mail1[private/dovecot-lmtp], dsn=2.0.0, status=sent (250 removed)"},
		{"qmgr", "4dReInj1: removed"},
	} {
		l.lines <- line
	}
	eventually(t, "all entries but the deferred one are closed", func() bool { return len(j.Pending()) <= 1 })
	cancel()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if got := ids(j.Pending()); len(got) != 1 || got[0] != deferred.ID {
		t.Errorf("open: got %v, want the deferred one, %v", got, deferred.ID)
	}
	slices.Sort(second.closed)
	want := []string{local.ID.String() + " delivered", relayed.ID.String() + " relayed", bounced.ID.String() + " relayed", reinjected.ID.String() + " delivered"}
	slices.Sort(want)
	if !slices.Equal(second.closed, want) {
		t.Errorf("got %v, want %v", second.closed, want)
	}
	if barriers < 2 || second.fail != 0 {
		t.Errorf("got %d barriers, want one that failed and one before the holder was away", barriers)
	}
	if args := strings.Join(<-l.args, " "); !strings.Contains(args, "--since=@1699999999") || !strings.Contains(args, "--unit=postfix.service") {
		t.Errorf("journalctl %s: want the unit's, since a second before the oldest entry", args)
	}
}

// What was delivered in an earlier reign went into Maildirs that another node has had since.
func TestWhatPostfixSaidOfAnEarlierQueueClosesNothing(t *testing.T) {
	j := open(t, options(t.TempDir()))
	defer finish(t, j)
	before, after := entry("before"), entry("after")
	before.Queue, after.Queue = "4dBefore", "4dAfter1"
	after.Time = before.Time.Add(time.Hour)
	appendTo(t, j, before)
	appendTo(t, j, after)
	l := logOf{make(chan [2]string), make(chan []string, 10)}
	f := &Follower{Closing: Closing{j, &book{}}, Runner: l, Since: after.Time.Add(-time.Minute).Truncate(time.Second), Again: time.Millisecond,
		Log: slog.New(slog.DiscardHandler), Barrier: func(context.Context) error { return nil }}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return f.Run(ctx) })
	l.lines <- [2]string{"qmgr", "4dBefore: removed"}
	l.lines <- [2]string{"qmgr", "4dAfter1: removed"}
	eventually(t, "the one of this reign is closed", func() bool { return len(j.Pending()) == 1 })
	cancel()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if got := ids(j.Pending()); got[0] != before.ID {
		t.Errorf("open: got %v, want %v", got, before.ID)
	}
	if args, want := strings.Join(<-l.args, " "), fmt.Sprintf("--since=@%d", f.Since.Unix()); !strings.HasSuffix(args, want) {
		t.Errorf("journalctl %s: want %s", args, want)
	}
}

func TestAnEmptyQueueIsPostfixsWord(t *testing.T) {
	const empty, check = "/usr/sbin/postsuper -d ALL", "/usr/sbin/postfix check"
	for claim, tc := range map[string]struct {
		fail []int // which of the commands fail
		want []string
		ok   bool
	}{
		"a queue":                    {nil, []string{empty}, true},
		"a queue that is yet to be":  {[]int{0}, []string{empty, check, empty}, true},
		"none that can be":           {[]int{0, 1}, []string{empty, check}, false},
		"one that cannot be emptied": {[]int{0, 2}, []string{empty, check, empty}, false},
	} {
		var ran []string
		f := &command.Fake{Script: func(c command.Cmd) (res command.Result, err error) {
			if slices.Contains(tc.fail, len(ran)) {
				res = command.Result{ExitCode: 1, Stderr: []byte("fatal: no")}
			}
			ran = append(ran, c.Path+" "+strings.Join(c.Args, " "))
			return res, nil
		}}
		err := EmptyQueue(t.Context(), f)
		if !slices.Equal(ran, tc.want) || (err == nil) != tc.ok || err != nil && !strings.Contains(err.Error(), "fatal: no") {
			t.Errorf("%s: got %v, %q; want %q", claim, err, ran, tc.want)
		}
	}
}
