package mailjournal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/smtp"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Filter says who has not got an entry yet. *Maildirs is the real one.
type Filter interface {
	// Missing returns the recipients here that lack it, and those elsewhere, of whom nobody can know.
	Missing(e Entry) (local, outbound []Recipient)
}

// Reinjector hands open entries of an earlier epoch to the local Postfix: at least once.
type Reinjector struct {
	Closing
	Filter Filter
	// Address of the smtpd that has no milters. Empty: ReinjectAddress.
	Address string
	// Accepted is told under which queue ID Postfix took an entry, which closes it when it is delivered: Follower.Track.
	Accepted func(id ID, queue string)
	// Pace is the least time between two messages, so that new mail is not kept waiting. Zero: 5 ms.
	Pace time.Duration
	// Backoff is waited after a failure; it doubles up to MaxBackoff. Zero: 1 s and 5 min.
	Backoff, MaxBackoff time.Duration
	// Timeout of one message. Zero: 1 min.
	Timeout time.Duration
	Log     *slog.Logger
}

// Report counts what Run did.
type Report struct {
	Sent       int // entries that Postfix took
	Duplicates int // entries that every recipient had already
	Outbound   int // recipients elsewhere that may get a message twice
}

// Run returns when Postfix has taken every entry that is open still, or when ctx ends. It goes on with the others while
// one is refused; what is refused for good is said as an error and tried at the slowest pace: a person must look.
func (r *Reinjector) Run(ctx context.Context, ids []ID) (report Report, err error) {
	wait := nonZero(r.Backoff, time.Second)
	for left := slices.Clone(ids); ; {
		var failed []ID
		for _, id := range left {
			if err := r.one(ctx, id, &report); err != nil {
				if ctx.Err() != nil {
					return report, ctx.Err()
				}
				r.Log.Error("mail from before the failover waits", "entry", id, "err", err)
				failed = append(failed, id)
			}
			if err := pause(ctx, nonZero(r.Pace, 5*time.Millisecond)); err != nil {
				return report, err
			}
		}
		if len(failed) == 0 {
			return report, nil
		}
		if err := pause(ctx, wait); err != nil {
			return report, err
		}
		left, wait = failed, min(2*wait, nonZero(r.MaxBackoff, 5*time.Minute))
	}
}

func (r *Reinjector) one(ctx context.Context, id ID, report *Report) error {
	ctx, cancel := context.WithTimeout(ctx, nonZero(r.Timeout, time.Minute))
	defer cancel()
	e, err := r.Journal.Read(id)
	if errors.Is(err, ErrUnknown) {
		return nil // closed meanwhile
	}
	if err != nil {
		return err
	}
	local, outbound := r.Filter.Missing(e)
	if len(local)+len(outbound) == 0 {
		if err := r.Closed(ctx, id); err != nil {
			return err
		}
		report.Duplicates++
		return nil
	}
	e.To = append(slices.Clip(local), outbound...)
	queue, err := r.send(ctx, e)
	if err != nil {
		return err
	}
	report.Sent++
	report.Outbound += len(outbound)
	if r.Accepted != nil {
		r.Accepted(id, queue)
	}
	return nil
}

// queuedAs matches Postfix's answer to a message.
var queuedAs = regexp.MustCompile(`queued as ([0-9A-Za-z]+)`)

// send is SMTP by hand: net/smtp sends no parameters of ours, and does not show the last answer, which has the queue ID.
func (r *Reinjector) send(ctx context.Context, e Entry) (queue string, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", nonZero(r.Address, ReinjectAddress))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		return "", err
	}
	if err := c.Hello("localhost"); err != nil {
		return "", err
	}
	say := func(code int, format string, args ...any) (string, error) {
		line := fmt.Sprintf(format, args...)
		if strings.ContainsAny(line, "\r\n\x00") {
			return "", fmt.Errorf("entry %v: its envelope holds a line end: %q", e.ID, line)
		}
		number, err := c.Text.Cmd("%s", line)
		if err != nil {
			return "", err
		}
		c.Text.StartResponse(number)
		defer c.Text.EndResponse(number)
		_, text, err := c.Text.ReadResponse(code)
		if err != nil {
			err = fmt.Errorf("%.80q: %w", line, err)
		}
		return text, err
	}
	if _, err := say(250, "MAIL FROM:<%s>%s", e.From, parameters(e.FromArgs)); err != nil {
		return "", err
	}
	for _, to := range e.To {
		if _, err := say(250, "RCPT TO:<%s>%s", to.Address, parameters(to.Args)); err != nil {
			return "", err // all or nothing: the entry stays open as a whole
		}
	}
	if _, err := say(354, "DATA"); err != nil {
		return "", err
	}
	w := c.Text.DotWriter()
	_, err = w.Write(slices.Concat([]byte(Header+": "+e.ID.String()+"\r\n"), bytes.TrimSuffix(e.Message, []byte("\r\n")), []byte("\r\n")))
	if err := errors.Join(err, w.Close()); err != nil {
		return "", err
	}
	_, text, err := c.Text.ReadResponse(250)
	if err != nil {
		return "", fmt.Errorf("at the end of the message: %w", err)
	}
	if match := queuedAs.FindStringSubmatch(text); match != nil {
		queue = match[1]
	}
	c.Quit() // the answer above is what counts
	return queue, nil
}

// parameters returns what is said again of a MAIL or RCPT. AUTH belongs to the first session, and the size has changed.
func parameters(args []string) string {
	var b strings.Builder
	for _, arg := range args {
		switch name, _, _ := strings.Cut(strings.ToUpper(arg), "="); name {
		case "BODY", "SMTPUTF8", "RET", "ENVID", "NOTIFY", "ORCPT":
			b.WriteString(" " + arg)
		}
	}
	return b.String()
}
