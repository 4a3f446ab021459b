// Package health finds out whether a node serves its role: whether the systemd units are active, the http URLs
// answer 2xx, the tcp ports accept and the command exits 0, as roles.yaml asks.
//
// All checks of a role run side by side once a second, each with its own time limit. A single look decides
// nothing: a check becomes unhealthy with the third bad look in a row and healthy again with the second good one.
// The first verdict comes with the first good look, or with the third bad one. A look that could not tell (systemd
// does not answer) counts for neither, unless nothing else comes for ten looks.
//
// A tcp check of a port on the loopback asks the kernel whether somebody listens there and still has room for
// connections. That is all that connecting would show, and it leaves no trace in the service's log.
//
// A check that falls again and again is damped: each fall within the last ten minutes doubles the number of good
// looks it takes to come back, up to a minute of them. Only coming back is ever delayed, so damping cannot stand in
// the way of a failover; and where no other node is better, an unhealthy primary keeps its duty anyway.
package health
