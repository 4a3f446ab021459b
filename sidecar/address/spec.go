//go:build linux

package address

import (
	"errors"
	"fmt"
	"net/netip"
)

// Spec says what address a role has on this machine.
type Spec struct {
	Role string
	// Link is the address on the link, with the length of its network. Invalid: the role has none.
	Link netip.Prefix
	// Interface is where Link is put. It must exist if Link is valid.
	Interface string
	// Anchor is the machine's own address to which the provider leads the reserved one. Invalid: not known, or none.
	// A role with neither Link nor Anchor has a gate in name only: nothing is dropped.
	Anchor netip.Addr
}

// addresses are what the role's gate is about.
func (s Spec) addresses() []netip.Addr {
	var all []netip.Addr
	if s.Link.IsValid() {
		all = append(all, s.Link.Addr())
	}
	if s.Anchor.IsValid() {
		all = append(all, s.Anchor)
	}
	return all
}

// check finds all that is wrong with specs. The interfaces are not looked at.
func check(specs []Spec) error {
	var errs []error
	roles, owners := map[string]bool{}, map[netip.Addr]string{}
	for _, s := range specs {
		if s.Role == "" {
			errs = append(errs, errors.New("an address of a role without a name"))
		}
		if roles[s.Role] {
			errs = append(errs, fmt.Errorf("role %s: given twice", s.Role))
		}
		roles[s.Role] = true
		if s.Link.IsValid() && (s.Interface == "" || len(s.Interface) > maxInterfaceName) {
			errs = append(errs, fmt.Errorf("role %s: address %s on interface %q: no name of an interface", s.Role, s.Link, s.Interface))
		}
		for _, ip := range s.addresses() {
			if owner, taken := owners[ip]; taken {
				errs = append(errs, fmt.Errorf("role %s: address %s is also that of role %s", s.Role, ip, owner))
			}
			owners[ip] = s.Role
			if !usable(ip) {
				errs = append(errs, fmt.Errorf("role %s: address %s: not one that a machine may answer on", s.Role, ip))
			}
		}
	}
	return errors.Join(errs...)
}

// maxInterfaceName is IFNAMSIZ without the final zero (netdevice(7)).
const maxInterfaceName = 15

// usable refuses what cannot be gated by address alone: the same loopback or link-local address is on every machine and
// interface, and a mapped one would be taken for IPv6.
func usable(ip netip.Addr) bool {
	return !ip.Is4In6() && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLoopback() && !ip.IsLinkLocalUnicast()
}
