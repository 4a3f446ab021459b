package role

import (
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// What single words of the file must look like, each with the words that say so to its writer.

// label is a DNS label as RFC 1123, section 2.1, allows it for hosts, in lower case only: a hostname
// is compared byte by byte in too many programs.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

const labelWanted = "a DNS label: 1 to 63 lower-case letters, digits and inner hyphens"

// isDomain accepts one or more lower-case labels without a final dot, no longer than RFC 1035,
// section 2.3.4, allows.
func isDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for l := range strings.SplitSeq(s, ".") {
		if !label.MatchString(l) {
			return false
		}
	}
	return true
}

const domainWanted = "a domain in lower case, without a final dot"

// within reports whether name is domain or below it.
func within(name, domain string) bool {
	return name == domain || strings.HasSuffix(name, "."+domain)
}

// word is what providers and stores call their things: a region, a size, an image, a key.
var word = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._:@/+-]*$`)

const wordWanted = "a name of letters, digits, spaces and . _ : @ / + -"

// bucket is an S3 bucket name, as AWS's "General purpose bucket naming rules" have it.
var bucket = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

const bucketWanted = "a bucket name: 3 to 63 lower-case letters, digits, dots and hyphens"

// roleName is a segment of a Puppet class name and a DNS label at once, which leaves no room for _ or -.
var roleName = regexp.MustCompile(`^[a-z][a-z0-9]{0,62}$`)

const roleNameWanted = "a role name: lower-case letters and digits, a letter first (it becomes a Puppet class and a DNS label)"

// userName is what adduser(8) takes by default.
var userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

const userNameWanted = "a user name"

// isInterface accepts what Linux does: dev_valid_name in net/core/dev.c, and no more than one word.
func isInterface(s string) bool {
	return len(s) <= 15 && s != "." && s != ".." && !strings.ContainsAny(s, "/: ")
}

const interfaceWanted = "the name of a network interface"

// unit is the name of a systemd unit: systemd.unit(5), "Description". A template without its
// instance is left out, because nothing can be started by that name.
var unit = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.` +
	`(service|socket|target|timer|path|mount|automount|swap|slice|scope|device)$`)

func isUnit(s string) bool { return len(s) <= 255 && unit.MatchString(s) }

const unitWanted = "the full name of a systemd unit, such as nginx.service"

// isPath accepts an absolute path that is written in its shortest form.
func isPath(s string) bool { return path.IsAbs(s) && path.Clean(s) == s }

const pathWanted = "an absolute path without . or .. or a second or final slash"

// isURL accepts what can be asked over HTTP and holds nothing that would have to be kept secret.
func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil && u.Fragment == "" &&
		isHost(u.Hostname()) && (u.Port() == "" || isPort(u.Port()))
}

const urlWanted = "an http or https URL without a user or a #fragment"

// isHost accepts an IP address or a name.
func isHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || isDomain(s)
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// isHostPort accepts host:port, with an IPv6 address in brackets.
func isHostPort(s string) bool {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Port() > 0
	}
	i := strings.LastIndexByte(s, ':')
	return i >= 0 && isDomain(s[:i]) && isPort(s[i+1:])
}

const hostPortWanted = "host:port"

// overlap reports whether one of two clean paths is the other or lies in it.
func overlap(a, b string) bool {
	return a == b || strings.HasPrefix(a, strings.TrimSuffix(b, "/")+"/") || strings.HasPrefix(b, strings.TrimSuffix(a, "/")+"/")
}
