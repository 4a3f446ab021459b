package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// problem is one thing wrong with a Config, at a key of the file such as listen.beats.
type problem struct{ key, msg string }

// Validate checks values and their relations, and joins all problems. Parse has done so already.
func (c Config) Validate() error {
	var errs []error
	for _, p := range c.problems() {
		errs = append(errs, fmt.Errorf("%s: %s", p.key, p.msg))
	}
	return errors.Join(errs...)
}

// problems are sorted by key.
func (c Config) problems() []problem {
	var all []problem
	bad := func(key, format string, args ...any) { all = append(all, problem{key, fmt.Sprintf(format, args...)}) }
	if c.Node != "" && !isLabel(c.Node) {
		bad("node", "%q is no node's name: 1 to 63 lower-case letters, digits and inner hyphens", c.Node)
	}
	for _, p := range []struct{ key, value string }{
		{"roster", c.Roster}, {"secrets", c.Secrets}, {"cluster_key_file", c.ClusterKeyFile}, {"state", c.State}, {"socket", c.Socket},
	} {
		must := p.key == "state" || p.key == "socket"
		if (must || p.value != "") && !(path.IsAbs(p.value) && path.Clean(p.value) == p.value) {
			bad(p.key, "%q is not an absolute path in its shortest form", p.value)
		}
	}
	c.Listen.problems(bad)
	for node, at := range c.Peers {
		if !isLabel(node) {
			bad("peers", "%q is no node's name", node)
		}
		if !at.IsValid() || at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
			bad("peers."+node, "%v is not the address of a machine", at)
		}
		if c.Node == node {
			bad("peers."+node, "is this node itself")
		}
	}
	if c.Metadata != "" && !isURL(c.Metadata) {
		bad("metadata", "%q is not an http URL, nor none", c.Metadata)
	}
	endpoint(c.Provider.Endpoint, "provider.endpoint", "the token", bad)
	endpoint(c.Ledger.Endpoint, "ledger.endpoint", "the ledger", bad)
	if b := c.Ledger.Bucket; b != "" && !bucket.MatchString(b) {
		bad("ledger.bucket", "%q is not a bucket name: 3 to 63 lower-case letters, digits, dots and hyphens", b)
	}
	if u, err := url.Parse(c.Ledger.Endpoint); err == nil && strings.Trim(u.Path, "/")+u.RawQuery != "" {
		bad("ledger.endpoint", "must end after the host; the bucket has a key of its own")
	}
	if s := c.DNS.Server; s != "" && !isHostPort(s) {
		bad("dns.server", "%q is not host:port", s)
	}
	if i := c.AddressInterface; len(i) > 15 || strings.ContainsAny(i, "/: ") || i == "." || i == ".." {
		bad("address_interface", "%q is not the name of a network interface", i) // dev_valid_name in Linux, net/core/dev.c
	}
	slices.SortStableFunc(all, func(a, b problem) int { return strings.Compare(a.key, b.key) })
	return all
}

// problems finds addresses that cannot be listened on, that meet each other, or that would show more than they should.
func (l Listen) problems(bad func(key, format string, args ...any)) {
	if l.Beats == "" {
		bad("listen.beats", "must not be none: without beats there is no member")
	}
	streams := map[string]string{} // address → key
	for _, f := range []struct{ key, value, among string }{
		{"listen.admin", l.Admin, "tcp"}, {"listen.beats", l.Beats, "udp"}, {"listen.join", l.Join, "tcp"}, {"listen.data", l.Data, "tcp"},
		{"listen.webhook", l.Webhook, "tcp"}, {"listen.metrics", l.Metrics, "tcp"}, {"listen.names", l.Names, ""},
	} {
		if f.value == "" {
			continue
		}
		host, port, err := net.SplitHostPort(f.value)
		addr, aerr := netip.ParseAddr(host)
		if err != nil || host != "" && aerr != nil || !isPort(port) {
			bad(f.key, "%q is not [ADDRESS]:PORT", f.value)
			continue
		}
		if (f.key == "listen.names" || f.key == "listen.metrics") && !addr.IsLoopback() {
			bad(f.key, "%s is not on loopback: everybody could ask", f.value)
		}
		for _, kind := range []string{"tcp", "udp"} { // names has both
			if f.among != "" && f.among != kind {
				continue
			}
			if other, ok := streams[kind+f.value]; ok {
				bad(f.key, "%s is %s already", f.value, other)
			}
			streams[kind+f.value] = f.key
		}
	}
}

// endpoint refuses what could not be asked, and plain http beyond the next machine: anyone on the way could read and
// change what passes.
func endpoint(s, key, what string, bad func(key, format string, args ...any)) {
	if s == "" {
		return
	}
	if !isURL(s) {
		bad(key, "%q is not an http or https URL without a user, a query or a #fragment", s)
		return
	}
	u, err := url.Parse(s)
	if err != nil {
		return // isURL has parsed it
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !ip.IsPrivate() && !ip.IsLoopback()) {
		bad(key, "must be https, for the sake of %s; http is for a loopback or private address", what)
	}
}

var (
	label  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) // RFC 1123, section 2.1, lower case only
	bucket = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)   // AWS, "General purpose bucket naming rules"
	domain = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

func isLabel(s string) bool { return label.MatchString(s) }

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil && u.Fragment == "" && u.RawQuery == "" &&
		isHost(u.Hostname()) && (u.Port() == "" || isPort(u.Port()))
}

func isHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || domain.MatchString(s)
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && isHost(host) && isPort(port)
}
