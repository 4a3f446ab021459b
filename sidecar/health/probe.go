//go:build linux

package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"understudy/bootstrap/command"
	"understudy/bootstrap/role"
	"understudy/sidecar/units"
)

// probe looks at one thing, within its time limit.
type probe struct {
	name string
	look func(context.Context) look
}

func newProbes(want role.Health, o Options) []probe {
	var all []probe
	add := func(name string, do func(context.Context) look) {
		all = append(all, probe{name, func(ctx context.Context) look {
			ctx, cancel := context.WithTimeout(ctx, o.Timeout)
			defer cancel()
			return do(ctx)
		}})
	}
	for _, unit := range want.Units {
		add("unit "+unit, func(ctx context.Context) look { return lookAtUnit(ctx, o.Units, unit) })
	}
	for _, target := range want.HTTP {
		add("http "+target, func(ctx context.Context) look { return lookAtURL(ctx, target, o.Timeout) })
	}
	for _, target := range want.TCP {
		add("tcp "+target, func(ctx context.Context) look { return lookAtPort(ctx, target, o.Timeout) })
	}
	if argv := want.Command; len(argv) > 0 {
		add("command "+argv[0], func(ctx context.Context) look { return lookByCommand(ctx, o.Runner, argv, o.Timeout) })
	}
	return all
}

func lookAtUnit(ctx context.Context, from Lister, name string) look {
	list, err := from.Look(ctx, []string{name})
	if err != nil {
		return look{unsure: true, why: err.Error()}
	}
	switch u := list[0]; {
	case u.Up():
		return look{ok: true}
	case u.Load == "not-found":
		return look{why: "is not installed"}
	case u.Load == "masked":
		return look{why: "is masked"}
	default:
		return look{why: fmt.Sprintf("is %s (%s)", u.Active, u.Sub)}
	}
}

// lookAtURL asks with a connection of its own: one that was kept open would say nothing about accepting new ones.
func lookAtURL(ctx context.Context, target string, timeout time.Duration) look {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return look{why: err.Error()}
	}
	req.Header.Set("User-Agent", "understudy")
	client := http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: tlsFor(req.URL), MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return look{why: inWords(err, timeout)}
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return look{why: "answers " + resp.Status}
	}
	// The answer must come to its end, or at least as far as anybody would call a check's answer.
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); err != nil {
		return look{why: inWords(err, timeout)}
	}
	return look{ok: true}
}

// tlsFor leaves a certificate unchecked where it is this machine that we talk to: it names what clients call the
// service, which is not how a check reaches this node's own.
func tlsFor(u *url.URL) *tls.Config {
	addr, err := netip.ParseAddr(u.Hostname())
	own := u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
	return &tls.Config{InsecureSkipVerify: own}
}

// lookAtPort connects, unless the port is this machine's own.
func lookAtPort(ctx context.Context, target string, timeout time.Duration) look {
	if at, err := netip.ParseAddrPort(target); err == nil && at.Addr().IsLoopback() {
		if l, err := lookAtListener(at, timeout); err == nil {
			return l
		} // a kernel that does not tell: connecting will
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	if err != nil {
		return look{why: inWords(err, timeout)}
	}
	conn.Close() // an error here says nothing about who accepted
	return look{ok: true}
}

func lookByCommand(ctx context.Context, run command.Runner, argv []string, timeout time.Duration) look {
	res, err := run.Run(ctx, command.Cmd{
		Path: argv[0], Args: argv[1:], Timeout: timeout, Grace: time.Second, MaxOutput: 4 << 10,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"},
	})
	if err != nil {
		return look{why: inWords(err, timeout)}
	}
	if res.ExitCode != 0 {
		why := fmt.Sprintf("exits %d", res.ExitCode)
		if last := lastLine(res.Stderr, res.Stdout); last != "" {
			why += ": " + last
		}
		return look{why: why}
	}
	return look{ok: true}
}

// inWords makes an error of the network or of a program short enough for a line of status.
func inWords(err error, timeout time.Duration) string {
	if _, ok := errors.AsType[*command.TimeoutError](err); ok || errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) {
		return fmt.Sprintf("does not answer within %v", timeout)
	}
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		return no.Error()
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return cut(err.Error())
}

// lastLine is the last line with something on it, of the first stream that has one.
func lastLine(streams ...[]byte) string {
	for _, out := range streams {
		text := strings.TrimSpace(string(out))
		if text != "" {
			return cut(text[strings.LastIndexByte(text, '\n')+1:])
		}
	}
	return ""
}

// cut bounds what a status line takes of somebody else's words.
func cut(s string) string {
	const most = 200
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s), "\uFFFD")
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

var _ Lister = (*units.Units)(nil)
