package mailjournal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"understudy/bootstrap/command"
)

// Closing closes entries: first at the second holder, then in the journal. An error means that it must be tried again.
type Closing struct {
	Journal *Journal
	Second  Second
}

// Closed notes that the mirror has the Maildir files of the entry.
func (c Closing) Closed(ctx context.Context, id ID) error { return c.finish(ctx, id, Delivered) }

// Relayed notes that Postfix is done with the entry and nothing of it was delivered here.
func (c Closing) Relayed(ctx context.Context, id ID) error { return c.finish(ctx, id, Relayed) }

func (c Closing) finish(ctx context.Context, id ID, how How) error {
	if err := c.Second.Finish(ctx, id, how); err != nil {
		return fmt.Errorf("close entry %v: %w", id, err)
	}
	return c.Journal.Finish(ctx, id, how)
}

// Follower learns from Postfix's log when it is done with a message, and closes the entry.
type Follower struct {
	Closing
	// Barrier returns when everything that was in the Maildirs before the call is durable on the mirror.
	Barrier func(ctx context.Context) error
	Runner  command.Runner
	// Since is when the queue was empty: what Postfix said before was about another one, of an earlier reign, whose Maildirs
	// another node has had since. Zero: everything counts.
	Since time.Time
	// Again is how long is waited before what failed is tried again. Zero: 5 s.
	Again time.Duration
	Log   *slog.Logger

	mu     sync.Mutex
	queued map[string]*message // by queue ID
	wake   chan struct{}
}

// message is one that Postfix has, or has had.
type message struct {
	id    ID
	local bool // a copy was delivered into a Maildir here
	over  bool // it has left the queue
}

// Track says under which queue ID Postfix has an entry. The log says it as well, where header checks are in place.
func (f *Follower) Track(id ID, queue string) {
	if queue == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.track(id, queue)
}

func (f *Follower) track(id ID, queue string) {
	if f.queued == nil {
		f.queued = make(map[string]*message)
	}
	if m := f.queued[queue]; m == nil || m.id != id {
		f.queued[queue] = &message{id: id}
	}
}

// Run follows the log until ctx ends, from the time of the oldest open entry on, or Since: what Postfix said while nobody
// listened counts.
func (f *Follower) Run(ctx context.Context) error {
	f.mu.Lock()
	f.wake = make(chan struct{}, 1)
	f.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.follow(ctx) })
	g.Go(func() error { return f.closeAll(ctx) })
	return g.Wait()
}

func (f *Follower) follow(ctx context.Context) error {
	for {
		since := time.Now()
		for _, m := range f.Journal.Pending() {
			if m.Time.Before(since) {
				since = m.Time
			}
			if m.Time.Before(f.Since) {
				continue
			}
			if e, err := f.Journal.Read(m.ID); err == nil {
				f.Track(e.ID, e.Queue)
			}
		}
		if since.Before(f.Since) {
			since = f.Since.Add(time.Second)
		}
		// The unit is the journal's own word: no other service can speak in its name.
		res, err := f.Runner.Run(ctx, command.Cmd{
			Path: "/usr/bin/journalctl",
			Args: []string{"--follow", "--lines=all", "--unit=postfix.service", "--output=json", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER",
				"--since=@" + strconv.FormatInt(since.Unix()-1, 10)},
			Env: []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"},
			OnLine: func(stream, line string) {
				if stream == command.Stdout {
					f.line(line)
				}
			},
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.Log.Warn("Postfix's log ended; following it again", "err", errors.Join(err, fmt.Errorf("journalctl: exit code %d", res.ExitCode)))
		if err := pause(ctx, nonZero(f.Again, 5*time.Second)); err != nil {
			return err
		}
	}
}

var (
	// saidOf matches Postfix's lines about one message: its queue ID, and the rest.
	saidOf = regexp.MustCompile(`^([0-9A-Za-z]{6,32}): (.*)$`)
	// carries matches cleanup's line for our header, put in by the milter or by re-injection. The text before it is
	// Postfix's, so that nothing a client says can look like it.
	carries = regexp.MustCompile(`^(?:milter-header-info|info): header ` + Header + `: ([0-9a-f]{32}) from `)
	status  = regexp.MustCompile(`, status=([a-z]+) \(`)
)

// line takes one line of journalctl's JSON.
func (f *Follower) line(text string) {
	var entry struct {
		Message    any    `json:"MESSAGE"` // a list of bytes where it is not UTF-8, null where it is too long
		Identifier string `json:"SYSLOG_IDENTIFIER"`
	}
	if json.Unmarshal([]byte(text), &entry) != nil {
		return
	}
	said, ok := entry.Message.(string)
	match := saidOf.FindStringSubmatch(said)
	if !ok || match == nil {
		return
	}
	program := entry.Identifier[strings.LastIndexByte(entry.Identifier, '/')+1:]
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(program, match[1], match[2])
}

func (f *Follower) note(program, queue, rest string) {
	if program == "cleanup" {
		if match := carries.FindStringSubmatch(rest); match != nil {
			if id, err := ParseID(match[1]); err == nil {
				f.track(id, queue)
			}
		}
		return
	}
	m := f.queued[queue]
	switch {
	case m == nil:
	case (program == "qmgr" || program == "postsuper") && rest == "removed":
		m.over = true
		select {
		case f.wake <- struct{}{}:
		default:
		}
	case program == "lmtp" || program == "virtual" || program == "local" || program == "pipe":
		if match := status.FindStringSubmatch(rest); match != nil && match[1] == "sent" {
			m.local = true
		}
	}
}

// closeAll closes what Postfix is done with. One barrier serves all that were delivered before it.
func (f *Follower) closeAll(ctx context.Context) error {
	said := ""
	for {
		select {
		case <-f.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		for {
			err := f.closeOver(ctx)
			if err == nil {
				said = ""
				break
			}
			if said != err.Error() {
				f.Log.Warn("entries of the mail journal stay open for now", "err", err)
			}
			said = err.Error()
			if err := pause(ctx, nonZero(f.Again, 5*time.Second)); err != nil {
				return err
			}
		}
	}
}

func (f *Follower) closeOver(ctx context.Context) error {
	over, local := make(map[string]message), false
	f.mu.Lock()
	for queue, m := range f.queued {
		if m.over {
			over[queue], local = *m, local || m.local
		}
	}
	f.mu.Unlock()
	var errs []error
	var barrier error
	if local {
		if barrier = f.Barrier(ctx); barrier != nil {
			errs = append(errs, fmt.Errorf("wait for the mirror: %w", barrier))
		}
	}
	for queue, m := range over {
		var err error
		switch {
		case m.local && barrier != nil:
			continue
		case m.local:
			err = f.Closed(ctx, m.id)
		default:
			err = f.Relayed(ctx, m.id)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.mu.Lock()
		delete(f.queued, queue)
		f.mu.Unlock()
	}
	return errors.Join(errs...)
}

// EmptyQueue deletes all that is in Postfix's queue, which should not run.
func EmptyQueue(ctx context.Context, runner command.Runner) error {
	run := func(path string, args ...string) error {
		res, err := runner.Run(ctx, command.Cmd{
			Path: path, Args: args, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}, Timeout: 30 * time.Second,
		})
		if err == nil && res.ExitCode != 0 {
			err = fmt.Errorf("%s: exit code %d: %.200s", path, res.ExitCode, res.Stderr)
		}
		return err
	}
	err := run("/usr/sbin/postsuper", "-d", "ALL")
	if err == nil {
		return nil
	}
	// Where Postfix has never run, the queue has no directories. This makes them, and takes a second, which a takeover would
	// wait for.
	if failed := run("/usr/sbin/postfix", "check"); failed != nil {
		return errors.Join(err, failed)
	}
	return run("/usr/sbin/postsuper", "-d", "ALL")
}

// pause waits for d, or until ctx ends, which is the error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
