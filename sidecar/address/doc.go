// Package address puts a role's address on this machine, announces it, takes it away, and keeps the gate: the rules in the
// kernel that decide whether this machine answers on the address at all.
//
// # The gate
//
// A gate is open for as long as the address is an element of a set in the nftables table "understudy", and such an element
// has a timeout (nft(8), "set elements"). So the gate closes by itself: it needs no process to close it, and a process that
// was killed or stopped cannot keep it open. Closed means, on every interface:
//
//   - no packet to the address is received while the address is this machine's, nor redirected by address translation;
//   - no packet from the address is sent, also not by sockets that are still bound to it after it has gone;
//   - no ARP message with the address as its sender leaves, and no neighbour advertisement for it, so nobody is answered and
//     nobody's neighbour table is changed. What this package announces passes the same rules, and so does a program that
//     writes frames itself (packet(7)), on the interface of the address.
//
// What this machine sends to the address and what comes back from there passes: the holder is another machine, whose client
// this one may be. So does what it forwards. Of an anchor address (the one behind a provider's reserved address) ARP is not
// gated: it is the machine's own, and the provider's router must find it at once when the reserved address comes here.
//
// A gate that drains lets everything pass but new TCP connections, whose first packets are dropped silently, so that the
// clients' retransmissions reach the next holder. There is no connection tracking.
//
// # Late writes
//
// An element's timeout counts from the moment the kernel takes it, so a writer that stood still between reading its clock
// and writing would open a gate for a right that has run out. The kernel refuses that here: first a ticket, an element that
// lives 20 ms, is added to a set of its own; then the clock is read; then one batch takes the ticket away and writes the gate.
// A ticket that has run out cannot be taken away, and nothing of the batch happens (nft's batches are atomic). So a gate is
// never open longer than it may be by more than the ticket's life and a tick of the kernel's timer (4 ms at 250 Hz), whatever
// happens to the process. As a rule it closes about two ticks too soon, because timeouts are rounded down; measured: 4 to
// 10 ms. What counts here is jiffies: a machine that is frozen by its hypervisor may answer for one gate time after it thaws.
//
// Every opener of the table has tickets of its own, so a process whose table has been replaced can write no more.
//
// # Refreshing
//
// An open gate stays open while it is refreshed. A batch switches the kernel from one generation of elements to the next at
// once, but up to Linux 6.16 a look-up that is under way at that moment may find neither the old nor the new element (fixed by
// "netfilter: nf_tables: restart set lookup on base_seq change"). The rules therefore ask twice. Updating an element's timeout
// in place needs Linux 6.12; add, delete, add in one batch does the same since 4.1, whether or not the element is still there.
//
// Needs Linux 5.16 (netdev egress hook); root, or CAP_NET_ADMIN and CAP_NET_RAW.
package address
