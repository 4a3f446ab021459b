// Package puppetrun has this machine converged on a release: one Puppet run at a time, in a systemd unit of its own.
//
// The run is `understudy-bootstrap -apply` in a transient unit, understudy-apply.service. It is not a child of the sidecar, because
// a catalog may restart the sidecar, and a run that restarts the unit it runs in kills itself (puppet#3700). So it
// goes on while the sidecar restarts, and the next sidecar finds it; systemd ends it, with every process it has started, when
// it takes too long.
//
// What the package promises: of a run that was begun there is a Result in the end, whatever was killed when, also "interrupted
// by a reboot"; results are kept, the newest Kept of them, over restarts and reboots. What runs is written down before it
// begins, and what came of an earlier run removed, so a result that is found belongs to the run that is written down.
//
// It decides nothing: neither what to apply nor what follows from a failure. It knows nothing of Puppet, whose lock and whose
// `puppet agent --disable` are the bootstrap's to honour.
package puppetrun
