//go:build linux

package netns

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
)

// Route leads addr (a reserved or public address) to target, or to nobody if target is the zero
// Addr: then packets to it are lost without a word, as at a provider. Connections open at the time, and those that nobody has answered yet, are forgotten, so that they follow the address.
func (n *Namespace) Route(addr, target netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.nat[addr]
	n.nat[addr] = target
	if err := n.apply(); err != nil {
		return fmt.Errorf("lead %s to %s: %w", addr, target, err)
	}
	if old != target {
		return n.forget(addr)
	}
	return nil
}

// Cut drops every frame that goes from one port to another; Cut both ways for a full partition.
func (n *Namespace) Cut(from, to string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drops[drop{from, to}] = true
	return n.apply()
}

// Heal takes all cuts back.
func (n *Namespace) Heal() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.drops)
	return n.apply()
}

// apply replaces the whole ruleset of the namespace in one transaction; n.mu is held.
func (n *Namespace) apply() error {
	return n.Do(func() error {
		cmd := exec.Command("/usr/sbin/nft", "-f", "-")
		cmd.Env = []string{"LANG=C.UTF-8"}
		cmd.Stdin = strings.NewReader(n.ruleset())
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			return errors.Join(fmt.Errorf("nft: %w", err), errors.New(strings.TrimSpace(out.String())))
		}
		return nil
	})
}

// ruleset is the namespace's nftables rules. Traffic from inside to a reserved or public address is
// translated like that from outside (a machine may reach itself by its own public address).
func (n *Namespace) ruleset() string {
	var b strings.Builder
	b.WriteString("flush ruleset\ntable ip nat {\n")
	b.WriteString("\tmap leads { type ipv4_addr : ipv4_addr; }\n")
	for _, hook := range []string{"prerouting", "output"} {
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype nat hook %s priority -100;\n\t\tdnat to ip daddr map @leads\n\t}\n", hook, hook)
	}
	b.WriteString("\tchain postrouting {\n\t\ttype nat hook postrouting priority 100;\n")
	// Only what was translated and comes back through the bridge needs another source, else the
	// machine would answer its neighbour directly, from an address nobody asked.
	b.WriteString("\t\tct status dnat ip saddr 10.0.0.0/8 masquerade\n\t}\n}\n")
	b.WriteString("table ip dark {\n\tset dark { type ipv4_addr; }\n")
	for _, hook := range []string{"prerouting", "output"} { // before a connection is tracked, so that the next try finds the new way
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype filter hook %s priority raw;\n\t\tip daddr @dark drop\n\t}\n", hook, hook)
	}
	b.WriteString("}\n")
	for _, a := range slices.SortedFunc(maps.Keys(n.nat), netip.Addr.Compare) {
		if to := n.nat[a]; to.IsValid() {
			fmt.Fprintf(&b, "add element ip nat leads { %s : %s }\n", a, to)
		} else {
			fmt.Fprintf(&b, "add element ip dark dark { %s }\n", a)
		}
	}
	b.WriteString("table bridge cuts {\n\tchain forward {\n\t\ttype filter hook forward priority 0; policy accept;\n")
	for _, d := range slices.SortedFunc(maps.Keys(n.drops), func(x, y drop) int {
		return cmp.Or(cmp.Compare(x.from, y.from), cmp.Compare(x.to, y.to))
	}) {
		fmt.Fprintf(&b, "\t\tiifname %q oifname %q drop\n", d.from, d.to)
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}
