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
// Laws, checked at every change:
//
//   - one gate of an address at a time, by true time (the provider's register decides for addresses without data behind them);
//   - one holder per epoch of a duty;
//   - nobody who is heard by all and has no fault near is displaced;
//   - the register is not taken away from a node that holds the duty by one that does not;
//   - some time after the last fault every duty that can be held is held by exactly one node, and who cannot says why.
package sim
