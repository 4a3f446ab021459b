// Package sim drives decide.Next, the production code, through seeded histories of a whole cluster: crashes, reboots, lost
// machines, pauses, partitions of every shape, lost and late beats, a ledger and a provider that are away, slow or wrong about
// what they did, orders of operators; on clocks that run up to half a percent apart and under a kernel that closes gates late.
//
// An episode is one fault schedule of up to four overlapping faults and the hour after it. The same seed gives the same
// episode to the last bit; Report.Trace is a hash of all that happened.
//
// What is not decide's is imitated as simply as can be: the mesh's sessions and beats, the loop's order of deeds, the executor
// with its pauses, the ledger, the provider's register, a zone with a guard. Beats, turns, answers and deadlines are events of
// one queue. When nothing has changed for a turn of every node, the world leaps: whatever is renewed over and over (silence
// of nobody, confirmed beats, the gates that hang on them, readings of what has not changed) is moved along, and every other
// deadline comes closer by as much. So an hour of quiet costs a few turns, and each turn is still the production code's.
//
// A role's data are written as long as its primary answers. The copy follows with a delay while the two are connected, and has to
// copy everything first; disks survive power-offs and die with their machines.
//
// Laws, checked at every change:
//
//   - one gate of an address at a time, by true time (the provider's register decides for addresses without data behind them);
//   - one holder per epoch of a duty;
//   - nobody who is heard by all and has no fault near is displaced;
//   - the register is not taken away from a node that holds the duty by one that does not;
//   - nobody takes over a role with data without what lay on two disks, nor without more than what its primary writes while it finds
//     out that its copy is away, if any machine that is there has it; nor without anything that was handed over in good order;
//   - no machine is taken away that alone has such data;
//   - some time after the last fault every duty that can be held is held by exactly one node, and who cannot says why. A role with
//     data may wait for a person if the newest are on a machine that does not come back by itself (Report.Waiting).
package sim
