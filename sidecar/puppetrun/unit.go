//go:build linux

package puppetrun

import (
	"fmt"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// Unit is the name of the unit in which runs take place.
const Unit = "understudy-apply.service"

// mount is one item of TemporaryFileSystem=, as it goes over D-Bus.
type mount struct{ Path, Options string }

// properties are the unit's, under their D-Bus names (org.freedesktop.systemd1(5)). What the bootstrap's own unit says of
// Puppet holds here, too: nothing may take a privilege away from it.
func (r *Runner) properties(job Job) []dbus.Property {
	argv := []string{r.cfg.Program, "-apply", job.Commit, "-result", filepath.Join(r.cfg.Dir, resultFile)}
	what := "Apply"
	if job.Noop {
		argv, what = append(argv, "-noop"), "Try"
	}
	set := func(name string, value any) dbus.Property {
		return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
	}
	all := []dbus.Property{
		dbus.PropDescription(fmt.Sprintf("%s commit %.12s (Understudy, %s)", what, job.Commit, job.Why)),
		// exec: the start succeeds when the program could be run. RuntimeMaxSec= does nothing for a oneshot.
		dbus.PropType("exec"),
		dbus.PropExecStart(argv, false), // true would be the - of systemd.service(5), whatever the parameter is called
		// Puppet, dpkg and whatever they have started end with it.
		set("KillMode", "control-group"),
		set("SendSIGKILL", true),
		set("RuntimeMaxUSec", uint64(r.cfg.Limit.Microseconds())),
		set("TimeoutStopUSec", uint64(r.cfg.Grace.Microseconds())),
		// One that has failed stays until it is asked why, also by the next sidecar.
		set("CollectMode", "inactive"),
		set("StandardOutput", "journal"),
		set("StandardError", "journal"),
		set("OOMPolicy", "continue"),
		set("UMask", uint32(0o022)),
		set("LimitCORE", uint64(0)),
		set("KeyringMode", "private"),
	}
	if !job.Noop {
		return all
	}
	return append(all,
		// Only a look ahead: the services come first.
		set("CPUWeight", uint64(20)),
		set("IOWeight", uint64(20)),
		// The commit's own secrets are laid out where manifests look for them, and are seen by nobody else. What the run
		// leaves behind goes with it.
		set("TemporaryFileSystem", []mount{{"/run/understudy", "mode=0755"}}),
		set("PrivateTmp", true),
	)
}
