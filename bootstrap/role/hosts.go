package role

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// maxNodes bounds the nodes of a whole roster. Keepalive compares every pair of them, and the
// cluster this is made for has a handful.
const maxNodes = 256

// hostPattern is a prefix, one range in brackets, and a suffix.
var hostPattern = regexp.MustCompile(`^([^\[\]]*)\[([0-9]+)-([0-9]+)\]([^\[\]]*)$`)

// expand writes out a hostname or a host pattern such as lb[1-2] or web[01-12], in ascending order.
func expand(pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, "[]") {
		if err := checkHost(pattern); err != nil {
			return nil, err
		}
		return []string{pattern}, nil
	}
	m := hostPattern.FindStringSubmatch(pattern)
	if m == nil {
		return nil, fmt.Errorf("%s is not a host pattern: write one range, such as web[1-2] or web[01-12]", quote(pattern))
	}
	prefix, first, last, suffix := m[1], m[2], m[3], m[4]
	width := 0
	if padded(first) || padded(last) {
		if len(first) != len(last) {
			return nil, fmt.Errorf("%s: with leading zeros, both ends must have as many digits", quote(pattern))
		}
		width = len(first)
	}
	low, errLow := strconv.Atoi(first)
	high, errHigh := strconv.Atoi(last)
	switch {
	case errLow != nil || errHigh != nil || high-low >= maxNodes:
		return nil, fmt.Errorf("%s: a range may have at most %d nodes", quote(pattern), maxNodes)
	case low > high:
		return nil, fmt.Errorf("%s: the range runs backwards", quote(pattern))
	}
	hosts := make([]string, 0, high-low+1)
	for i := low; i <= high; i++ {
		host := fmt.Sprintf("%s%0*d%s", prefix, width, i, suffix)
		if err := checkHost(host); err != nil {
			return nil, fmt.Errorf("%s: %w", quote(pattern), err)
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

func padded(digits string) bool { return len(digits) > 1 && digits[0] == '0' }

// checkHost says why s cannot be the name of a node.
func checkHost(s string) error {
	switch {
	case s == "localhost":
		// hostname(5): what a machine calls itself that has not been named.
		return fmt.Errorf("localhost is the name of a machine that has none yet")
	case strings.Contains(s, "."):
		return fmt.Errorf("%s: a node is named without its domain", quote(s))
	case !label.MatchString(s):
		return fmt.Errorf("%s is not a hostname: 1 to 63 lower-case letters, digits and inner hyphens", quote(s))
	}
	return nil
}
