// Package metrics tells Prometheus what a node's sidecar knows. It judges nothing and remembers nothing: every value is
// read from the newest turn of the loop, or from counters of others, while Prometheus asks.
//
// The names are a promise: metrics are added, never changed or taken away. Where there is no reading there is no sample,
// so that an alert on absence is possible and a zero is a zero. Labels are few: node, role, duty, zone, directory and reason take their
// values from roles.yaml and from fixed lists. Puppet's reasons are rehearsal (of a new commit, without effects), rollout, rollback, look (for
// drift, without effects) and drift (which is corrected).
//
//	understudy_redundant                   gauge    1 if every role has all its nodes serving and each duty a primary
//	understudy_turn_age_seconds            gauge    since the loop last turned; more than 10 means that it hangs
//	understudy_blocked                     gauge    things that this node should do and cannot
//	understudy_changing                    gauge    changes of duties, addresses, units or names under way here
//	understudy_paused                      gauge    1 if this node only observes
//	understudy_voting                      gauge    1 if this node grants and confirms
//	understudy_members                     gauge    members that should exist
//	understudy_members_heard               gauge    members that are heard, this one included
//	understudy_members_needed              gauge    members that are a majority
//	understudy_role_nodes_serving          gauge    role             nodes that serve
//	understudy_role_nodes_wanted           gauge    role             nodes that should
//	understudy_role_has_primary            gauge    role             1 if somebody acts on the role's duty
//	understudy_duty_epoch                  gauge    duty             newest epoch known here
//	understudy_duty_held                   gauge    duty             1 if this node acts on the duty
//	understudy_gate_open_seconds           gauge    role             until the gate would close by itself; 0 while it is closed
//	understudy_connections                 gauge    role             connections to the role's address on this machine
//	understudy_node_serving                gauge    node, role       1 if the node counts for redundancy
//	understudy_node_silence_seconds        gauge    node             since the peer was last heard
//	understudy_node_lag_seconds            gauge    node             its copy of the data behind the primary's; +Inf: it has none yet
//	understudy_data_caught_up              gauge    role             1 if the mirror has everything that is known
//	understudy_data_mirrored               gauge    directory        at its primary: 1 if the other node follows it
//	understudy_data_pending_changes        gauge    directory        at its primary: what the mirror lacks
//	understudy_data_pending_bytes          gauge    directory        at its primary: what the mirror lacks
//	understudy_data_waiting                gauge    directory        at its primary: paths that cannot be mirrored now; ten at most are counted
//	understudy_data_refused                gauge    directory        at its primary: 1 if it has stopped rather than empty its mirror
//	understudy_data_watched                gauge    directory        at its primary: directories watched below it
//	understudy_data_unwatched              gauge    directory        at its primary: directories whose changes only a comparison sees
//	understudy_data_overflows              gauge    directory        at its primary: overflows of the kernel's queue since the stream began
//	understudy_data_rotten                 gauge    directory        files whose content changed though no time did; ten at most are counted
//	understudy_data_verified_age_seconds   gauge    directory        since every byte was read on this node
//	understudy_rollout_nodes_current       gauge    nodes that have applied the newest accepted commit
//	understudy_rollout_nodes               gauge    nodes that should
//	understudy_rollout_held                gauge    1 if a node failed with it, so that no other tries it
//	understudy_rollout_refused             gauge    1 if the branch's newest commit is not accepted
//	understudy_puppet_run_failed           gauge    reason           1 if the newest run for this failed
//	understudy_puppet_run_duration_seconds  gauge    reason           how long it took
//	understudy_puppet_run_changed          gauge    reason           resources that it changed, or would have
//	understudy_puppet_run_corrective       gauge    reason           resources that were not as the commit that was there already wants them
//	understudy_mail_journal_open           gauge    accepted messages that are not known to be mirrored or relayed
//	understudy_mail_journal_refusing       gauge    1 if senders are told to try again later
//	understudy_mail_journal_second         gauge    1 if another member takes the second copies
//	understudy_mail_journal_behind         gauge    members that may hold mail from before the last takeover and could not be asked yet
//	understudy_ledger_usable               gauge    1 if the ledger is sound and answered the newest request
//	understudy_ledger_age_seconds          gauge    since the newest reading of the ledger was asked for
//	understudy_zone_age_seconds            gauge    zone             since the newest reading of the zone was asked for
//	understudy_zone_records                gauge    zone             records of ours that the zone publishes
//	understudy_build_info                  gauge    version          1
//	understudy_control_looks_total         counter  times that the control repo's origin was asked for its newest commit
//	understudy_control_bytes_total         counter  bytes to and from its sources, without the headers of TCP and IP
//	understudy_beats_sent_total            counter  datagrams sent to other members
//	understudy_beats_sent_bytes_total      counter  their bytes, without the headers of UDP and IP
//	understudy_beats_received_total        counter  datagrams received
//	understudy_beats_received_bytes_total  counter  their bytes, without the headers of UDP and IP
//	understudy_beats_unsent_total          counter  datagrams that the kernel did not take
//	understudy_beats_refused_total         counter  reason           received datagrams that did not count
//	understudy_beats_missed_total          counter  node             times that two beats in a row failed to come
//
// Besides there are go_* and process_* of the client library.
package metrics
