//go:build linux

package node

import (
	"context"
	"strings"
	"testing"
	"time"
)

const (
	sidecar = "understudy.service"
	writer  = "writer.service"
	target  = "understudy-primary@app.target"
)

// roster is a cluster of this one machine: a majority by itself, so it has the duty as soon as its sidecar runs.
const roster = `cluster: test
domain: test.example
provider: {local: {region: r, size: s, image: i}}
roles:
  app:
    nodes: [app1]
    understudy: none
    data: [{path: /srv/app}]
    primary_units: [writer.service]
    health: {units: [writer.service]}
`

const settings = `node: app1
roster: /etc/understudy/roles.yaml
cluster_key_file: /etc/understudy/key
metadata: none
listen: {admin: none}
`

// writerUnit writes down when it starts and ends, bound to the duty as Puppet binds it. plainUnit is a service that answers
// on the role's address: it goes after the sidecar.
const (
	writerUnit = `[Service]
ExecStartPre=/bin/sh -c 'echo writer starts >>/var/lib/order'
ExecStart=/usr/bin/sleep infinity
ExecStopPost=/bin/sh -c 'echo writer ends >>/var/lib/order'
[Install]
WantedBy=multi-user.target
`
	bound = `[Unit]
Requisite=understudy-primary@app.target
PartOf=understudy-primary@app.target
After=understudy-primary@app.target
`
	plainUnit = `[Service]
ExecStart=/usr/bin/sleep infinity
ExecStopPost=/bin/sh -c 'echo plain ends >>/var/lib/order'
[Install]
WantedBy=multi-user.target
`
	// The sidecar as it is, with a shorter watchdog and its end written down.
	faster = `[Unit]
After=writer.service plain.service
[Service]
WatchdogSec=2s
ExecStopPost=/bin/sh -c 'echo sidecar ends >>/var/lib/order'
`
)

// member makes the machine a node of a cluster of one, with the sidecar stopped. The writer is enabled, as a package's
// script might have done it.
func member(t *testing.T) *machine {
	t.Helper()
	m := boot(t)
	t.Cleanup(func() {
		for _, argv := range [][]string{
			{"systemctl", "stop", sidecar, target, writer, "plain.service"},
			{"systemctl", "disable", writer, "plain.service"},
			{"sh", "-c", "rm -rf /var/lib/order /srv/app /var/lib/understudy/* /etc/systemd/system/writer.service* /etc/systemd/system/plain.service /etc/systemd/system/understudy.service.d; systemctl daemon-reload"},
		} {
			if out, err := m.run(context.Background(), nil, argv...); err != nil {
				t.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, out)
			}
		}
	})
	for path, text := range map[string]string{
		"/etc/understudy/roles.yaml": roster, "/etc/understudy/sidecar.yaml": settings, "/etc/understudy/key": strings.Repeat("k", 64),
		"/etc/systemd/system/writer.service": writerUnit, "/etc/systemd/system/writer.service.d/50-understudy-primary.conf": bound,
		"/etc/systemd/system/plain.service": plainUnit, "/etc/systemd/system/understudy.service.d/50-test.conf": faster,
		"/var/lib/understudy/bootstrap.done": "app1\n", "/var/lib/order": "",
	} {
		m.write(t, path, text, "0644")
	}
	m.must(t, "mkdir", "-p", "/srv/app") // which Puppet makes
	m.must(t, "systemctl", "daemon-reload")
	m.must(t, "systemctl", "enable", writer, "plain.service")
	m.must(t, "systemctl", "start", "plain.service")
	return m
}

// order is what was written down since the last call.
func order(t *testing.T, m *machine) string {
	t.Helper()
	got := strings.ReplaceAll(m.must(t, "cat", "/var/lib/order"), "\n", ", ")
	m.write(t, "/var/lib/order", "", "0644")
	return got
}

func TestWritersRunWithTheDutyAndNeverWithout(t *testing.T) {
	m := member(t)
	if out, err := m.run(t.Context(), nil, "systemctl", "start", writer); err == nil {
		t.Errorf("the writer was started without the duty: %s", out)
	}
	if got := m.active(t, target); got != "inactive" {
		t.Errorf("starting the writer made the target %s", got)
	}
	m.must(t, "systemctl", "start", sidecar)
	m.becomes(t, writer, "active")
	if got := m.active(t, target); got != "active" {
		t.Errorf("with the duty: the target is %s, want active", got)
	}
	m.must(t, "systemctl", "stop", sidecar)
	m.becomes(t, target, "inactive")
	if got := m.active(t, writer); got != "inactive" {
		t.Errorf("after a clean stop of the sidecar: the writer is %s, want inactive", got)
	}
	if got, want := order(t, m), "writer starts, writer ends, sidecar ends"; got != want {
		t.Errorf("order: got %q, want %q", got, want)
	}
}

// Neither the sidecar's own code nor its next start is needed for that: systemd tidies up.
func TestWritersEndWhenTheSidecarIsKilled(t *testing.T) {
	m := member(t)
	m.must(t, "systemctl", "start", sidecar)
	m.becomes(t, writer, "active")
	m.write(t, "/etc/systemd/system/understudy.service.d/60-once.conf", "[Service]\nRestart=no\n", "0644")
	m.must(t, "systemctl", "daemon-reload")
	m.must(t, "systemctl", "kill", "--signal=KILL", "--kill-whom=main", sidecar)
	m.becomes(t, writer, "inactive")
	m.becomes(t, target, "inactive")
}

func TestAKilledSidecarComesBackAndTakesTheDutyUpAgain(t *testing.T) {
	m := member(t)
	m.must(t, "systemctl", "start", sidecar)
	m.becomes(t, writer, "active")
	before := m.show(t, writer, "InvocationID")
	m.must(t, "systemctl", "kill", "--signal=KILL", "--kill-whom=main", sidecar)
	m.eventually(t, "another start of the writer", func() string { return m.show(t, writer, "InvocationID") },
		func(id string) bool { return id != "" && id != before })
	m.becomes(t, writer, "active")
}

func TestTheWatchdogEndsASidecarThatStandsStill(t *testing.T) {
	m := member(t)
	m.must(t, "systemctl", "start", sidecar)
	m.becomes(t, writer, "active")
	pid := m.show(t, sidecar, "MainPID")
	m.must(t, "kill", "-STOP", pid)
	m.eventually(t, "another process of the sidecar", func() string { return m.show(t, sidecar, "MainPID") },
		func(p string) bool { return p != pid && p != "0" && p != "" })
	if got := m.must(t, "journalctl", "--no-pager", "--unit="+sidecar, "--grep=watchdog", "--case-sensitive=no", "--lines=5"); !strings.Contains(strings.ToLower(got), "watchdog") {
		t.Errorf("the journal does not name the watchdog: %s", got)
	}
	m.becomes(t, writer, "active")
}

// At a reboot the duty is handed over while all services still answer; after it nothing writes before the sidecar says so.
func TestAtAShutdownTheSidecarGoesFirst(t *testing.T) {
	m := member(t)
	m.must(t, "systemctl", "start", sidecar)
	m.becomes(t, writer, "active")
	order(t, m)
	leader, _ := m.backend.Leader(machineID)
	m.must(t, "systemctl", "--no-block", "reboot")
	m.eventually(t, "another PID 1", func() string { return "" }, func(string) bool {
		now, ok := m.backend.Leader(machineID)
		return ok && now != leader
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		out, err := m.run(ctx, nil, "systemctl", "is-active", writer)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the writer does not come back after the reboot: %s", out)
		}
		pause(ctx, 100*time.Millisecond)
	}
	if got, want := order(t, m), "writer ends, sidecar ends, plain ends, writer starts"; got != want {
		t.Errorf("order: got %q, want %q", got, want)
	}
	if got := m.show(t, writer, "InvocationID"); got == "" {
		t.Error("the writer has no invocation")
	}
}

func TestALateBootstrapStartsTheSidecar(t *testing.T) {
	m := member(t)
	m.must(t, "rm", "/var/lib/understudy/bootstrap.done")
	m.write(t, "/etc/systemd/system/understudy-bootstrap.service.d/50-test.conf",
		"[Service]\nExecStart=\nExecStart=/bin/sh -c 'touch /var/lib/understudy/bootstrap.done; systemd-notify --ready; sleep 0.2'\nNotifyAccess=all\n", "0644")
	m.must(t, "systemctl", "daemon-reload")
	t.Cleanup(func() {
		if out, err := m.run(context.Background(), nil, "rm", "-r", "/etc/systemd/system/understudy-bootstrap.service.d"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	m.must(t, "systemctl", "start", sidecar) // at boot: skipped, the bootstrap has failed
	if got := m.active(t, sidecar); got != "inactive" {
		t.Fatalf("without the marker the sidecar is %s, want inactive", got)
	}
	m.must(t, "systemctl", "start", "understudy-bootstrap.service")
	m.becomes(t, sidecar, "active")
}
