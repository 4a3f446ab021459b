package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A DNS name in the spelling of roles.yaml: lower case, without a final dot (RFC 1123, section 2.1).
var hostnamePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

const noHostname = "give the machine its name when it is created, or run: hostnamectl hostname NAME"

// hostname finds our name: the kernel's, or the metadata service's while the kernel still has the image's.
func hostname(ctx context.Context, b *boot) (string, error) {
	name, err := b.kernel.hostname()
	if err != nil {
		return "", fmt.Errorf("read the kernel's hostname: %w", err)
	}
	if b.named(name) {
		b.node = name
		b.recheckMachine(ctx)
		b.learn()
		return name, nil
	}
	given, err := b.meta.line(ctx, "hostname")
	given = strings.ToLower(strings.TrimSuffix(given, "."))
	switch {
	case errors.Is(err, errNoMetadata):
		return "", failf(exitNoHostname, noHostname, "the kernel's hostname is %q, and there is no metadata service to ask", name)
	case err != nil:
		return "", retry(exitNoHostname, fmt.Errorf("no hostname yet: the kernel has %q: %w", name, err), noHostname)
	case given == "":
		return "", retry(exitNoHostname, fmt.Errorf("no hostname yet: the kernel has %q and the metadata service none", name), noHostname)
	case len(given) > 64 || !hostnamePattern.MatchString(given):
		return "", failf(exitNoHostname, noHostname, "the metadata service calls this machine %.80q, which is no hostname", given)
	}
	b.recheckMachine(ctx)
	if b.noop {
		b.node = given
		b.learn()
		return given + ", from the metadata service (would be set)", nil
	}
	if err := b.rename(given); err != nil {
		return "", err
	}
	b.node = given
	b.learn()
	return given + ", from the metadata service", nil
}

// named says whether a name is one's own and not that of every machine.
func (b *boot) named(name string) bool {
	short, _, _ := strings.Cut(name, ".")
	return !slices.Contains(append([]string{"", "localhost", "(none)"}, b.cfg.ImageHostnames...), short) &&
		!slices.Contains(b.cfg.ImageHostnames, name)
}

// learn notes the name in the record and in every later log line.
func (b *boot) learn() {
	b.engine.record.Node, _, _ = strings.Cut(b.node, ".")
	b.engine.relog()
}

// recheckMachine asks the provider which machine this is, once and briefly, so that a record that came
// with the image is not taken for our own. Without an answer the machine-id alone must do.
func (b *boot) recheckMachine(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	id, err := b.meta.line(ctx, "id")
	if err != nil || id == "" {
		return
	}
	m := b.engine.record.Machine
	m.DropletID = id
	attempt := b.engine.record.Attempt
	if b.engine.adopt(m) {
		b.log.Warn("the record of earlier steps is another machine's; starting over", "machine", id)
		b.engine.record.Attempt = attempt
	}
}

// rename makes name this machine's, now and after a reboot.
func (b *boot) rename(name string) error {
	if err := writeFile(b.at.hostname, []byte(name+"\n"), 0o644, durable); err != nil {
		return fmt.Errorf("write the hostname: %w", err)
	}
	if err := b.nameInHosts(name); err != nil {
		return err
	}
	if err := b.kernel.setHostname(name); err != nil {
		return fmt.Errorf("set the kernel's hostname to %s: %w", name, err)
	}
	return nil
}

// nameInHosts lets the machine resolve its own name without asking anybody. Once the domain is known it is
// in there too: without it Facter asks DNS for it, and where DNS does not answer every Puppet run waits.
func (b *boot) nameInHosts(name string) error {
	hosts, err := os.ReadFile(b.at.hosts)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the hosts file: %w", err)
	}
	changed := withHost(string(hosts), name)
	if changed == string(hosts) {
		return nil
	}
	if err := writeFile(b.at.hosts, []byte(changed), 0o644, durable); err != nil {
		return fmt.Errorf("write the hosts file: %w", err)
	}
	return nil
}

// withHost gives 127.0.1.1 the name, as Debian does it (Debian Reference, 5.1.1), and leaves all else.
func withHost(hosts, name string) string {
	line := "127.0.1.1 " + name
	if short, _, dotted := strings.Cut(name, "."); dotted {
		line += " " + short
	}
	var out []string
	done := false
	for _, l := range strings.Split(strings.TrimRight(hosts, "\n"), "\n") {
		if f := strings.Fields(l); len(f) > 0 && f[0] == "127.0.1.1" {
			if done {
				continue
			}
			l, done = line, true
		}
		out = append(out, l)
	}
	if !done {
		out = append(out, line)
	}
	return strings.TrimLeft(strings.Join(out, "\n"), "\n") + "\n"
}
