package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifier speaks sd_notify(3). Without a service manager every call does nothing.
type notifier struct {
	send func(state string) // daemon.SdNotify, or a test's
}

// newNotifier sends to the service manager that started us. What it says is a courtesy: a manager that
// does not listen must not stop a bootstrap, so errors are dropped.
func newNotifier() notifier {
	return notifier{send: func(state string) { _, _ = daemon.SdNotify(false, state) }}
}

// status shows one line in `systemctl status`.
func (n notifier) status(text string) { n.send("STATUS=" + strings.ReplaceAll(text, "\n", " ")) }

// allow tells the manager how long the present step may take before we count as hung. Each step bounds
// itself; the margin is for what is around it.
func (n notifier) allow(d time.Duration) {
	n.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (d + time.Minute).Microseconds()))
}

// ready says that the machine is its node.
func (n notifier) ready() { n.send(daemon.SdNotifyReady) }
