// Package units starts and stops the services that write a role's data, so that they run on the node with
// the duty and nowhere else, and reads the state of any unit.
//
// What holds them is a systemd target of each role, understudy-primary@<role>.target, which nothing but this
// package starts: no boot, no installation, no Puppet run. A unit that is bound to it with Requisite=, After=
// and PartOf= (Puppet writes such a drop-in for each of the role's primary_units) is refused by systemd while
// the target is not active, and is stopped with it. Requisite= and not BindsTo=: the latter would start the
// target, and with it the other writers, as soon as anybody started one of them (systemd.unit(5)). A unit that
// has no such drop-in is started and stopped all the same; it only lacks that second protection.
//
// States are asked for, not subscribed to: systemd sends a subscriber every property change of every unit of
// the machine, hundreds a second while packages are installed, and one call for all units of a role once a
// second takes 0.2 ms (2 ms for units that nothing refers to, whose files it then reads each time). An answer is also right after systemd has been re-executed, which a
// subscription is not.
package units
