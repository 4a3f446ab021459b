package metrics

import (
	"math"
	"time"

	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
	"understudy/sidecar/keepalive"
)

// metric is one row of the table in the package comment.
type metric struct {
	name, help string
	labels     []string
	counter    bool
	read       func(reading, emit)
}

// emit adds a sample with the values of the labels.
type emit func(value float64, labels ...string)

// reading is what a scrape reads from. Beats is nil where nobody counts them, journal and data where
// there are none.
type reading struct {
	data *admin.RoleData
	runs []admin.PuppetRun
	// looks and lookBytes are worth something only where follows is true.
	looks, lookBytes uint64
	follows          bool
	journal          *admin.Journal
	status           admin.Status
	plan             admin.Plan
	view             decide.View
	beats            *keepalive.Stats
	version          string
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(d admin.Duration) float64 { return time.Duration(d).Seconds() }

// table is every metric of ours, in the order of the package comment.
var table = []metric{
	{name: "redundant", help: "1 if every role has all its nodes serving and each duty a primary.",
		read: func(r reading, e emit) { e(truth(r.status.Redundant)) }},
	{name: "turn_age_seconds", help: "Time since the loop last turned; more than 10 means that it hangs.",
		read: func(r reading, e emit) { e(seconds(r.status.Age)) }},
	{name: "blocked", help: "Things that this node should do and cannot.",
		read: func(r reading, e emit) { e(float64(len(r.status.Blocked))) }},
	{name: "changing", help: "Changes of duties, addresses, units or names under way here.", read: changing},
	{name: "paused", help: "1 if this node only observes.", read: func(r reading, e emit) { e(truth(r.status.Paused)) }},
	{name: "voting", help: "1 if this node grants and confirms.", read: voting},
	{name: "members", help: "Members that should exist.", read: func(r reading, e emit) { e(float64(r.status.Majority.Members)) }},
	{name: "members_heard", help: "Members that are heard, this one included.",
		read: func(r reading, e emit) { e(float64(r.status.Majority.Heard)) }},
	{name: "members_needed", help: "Members that are a majority.", read: func(r reading, e emit) { e(float64(r.status.Majority.Needed)) }},
	{name: "role_nodes_serving", help: "Nodes of the role that serve.", labels: []string{"role"},
		read: roles(func(r admin.Role) (float64, bool) { return float64(r.Serving), true })},
	{name: "role_nodes_wanted", help: "Nodes of the role that should serve.", labels: []string{"role"},
		read: roles(func(r admin.Role) (float64, bool) { return float64(r.Wanted), true })},
	{name: "role_has_primary", help: "1 if somebody acts on the role's duty.", labels: []string{"role"},
		read: roles(func(r admin.Role) (float64, bool) { return truth(r.Primary != ""), r.Duty })},
	{name: "duty_epoch", help: "Newest epoch of the duty that is known here.", labels: []string{"duty"},
		read: roles(func(r admin.Role) (float64, bool) { return float64(r.Epoch), r.Duty })},
	{name: "duty_held", help: "1 if this node acts on the duty.", labels: []string{"duty"}, read: held},
	{name: "gate_open_seconds", help: "Time until the gate would close by itself; 0 while it is closed.", labels: []string{"role"}, read: gates},
	{name: "connections", help: "Connections to the role's address on this machine.", labels: []string{"role"}, read: connections},
	{name: "node_serving", help: "1 if the node counts for redundancy.", labels: []string{"node", "role"},
		read: nodes(func(_ reading, n admin.Node) (float64, []string, bool) {
			return truth(n.Serves()), []string{n.Name, n.Role}, true
		})},
	{name: "node_silence_seconds", help: "Time since the peer was last heard.", labels: []string{"node"},
		read: nodes(func(r reading, n admin.Node) (float64, []string, bool) {
			return seconds(n.Silent), []string{n.Name}, n.Name != r.status.Node && n.Alive != decide.NeverHeard.String()
		})},
	{name: "node_lag_seconds", help: "How far the node's copy of the data is behind the primary's.", labels: []string{"node"}, read: lags},
	{name: "data_caught_up", help: "1 if the mirror has everything that is known, as this node knows.", labels: []string{"role"},
		read: func(r reading, e emit) {
			if r.data != nil {
				e(truth(r.data.CaughtUp), r.data.Role)
			}
		}},
	{name: "data_mirrored", help: "1 if the other node follows this directory of the primary's.", labels: []string{"directory"},
		read: directories(func(d admin.Directory) float64 { return truth(d.Mirror != "") })},
	{name: "data_pending_changes", help: "Changes that the mirror of the directory lacks.", labels: []string{"directory"},
		read: directories(func(d admin.Directory) float64 { return float64(d.Changes) })},
	{name: "data_pending_bytes", help: "Bytes that the mirror of the directory lacks.", labels: []string{"directory"},
		read: directories(func(d admin.Directory) float64 { return float64(d.Bytes) })},
	{name: "data_waiting", help: "Paths that cannot be mirrored now and are tried again; ten at most are counted.", labels: []string{"directory"},
		read: directories(func(d admin.Directory) float64 { return float64(len(d.Waiting)) })},
	{name: "data_refused", help: "1 if the source has stopped rather than empty its mirror.", labels: []string{"directory"},
		read: directories(func(d admin.Directory) float64 { return truth(d.Refused != "") })},
	{name: "data_watched", help: "Directories that are watched below this one.", labels: []string{"directory"},
		read: directories(func(d admin.Directory) float64 { return float64(d.Watched) })},
	{name: "data_unwatched", help: "Directories whose changes only a comparison sees.", labels: []string{"directory"},
		read: directories(func(d admin.Directory) float64 { return float64(d.Unwatched) })},
	{name: "data_overflows", help: "Overflows of the kernel's queue since the mirror's stream began.", labels: []string{"directory"},
		read: directories(func(d admin.Directory) float64 { return float64(d.Overflows) })},
	{name: "data_rotten", help: "Files whose content changed though no time did; ten at most are counted.", labels: []string{"directory"},
		read: verified(func(d admin.Directory) float64 { return float64(len(d.Rotten)) })},
	{name: "data_verified_age_seconds", help: "Time since every byte of the directory was read on this node.", labels: []string{"directory"},
		read: verified(func(d admin.Directory) float64 { return time.Since(d.Verified).Seconds() })},
	{name: "rollout_nodes_current", help: "Nodes that have applied the newest accepted commit.",
		read: rollout(func(r admin.Rollout) float64 { return float64(r.At) })},
	{name: "rollout_nodes", help: "Nodes that should have applied it.",
		read: rollout(func(r admin.Rollout) float64 { return float64(r.Of) })},
	{name: "rollout_held", help: "1 if a node failed with the newest accepted commit, so that no other tries it.",
		read: rollout(func(r admin.Rollout) float64 { return truth(r.Held != "") })},
	{name: "rollout_refused", help: "1 if the branch's newest commit is not accepted.",
		read: rollout(func(r admin.Rollout) float64 { return truth(r.Refused != "") })},
	{name: "puppet_run_failed", help: "1 if the newest run of Puppet for this failed.", labels: []string{"reason"},
		read: newest(func(r admin.PuppetRun) float64 { return truth(!r.Good()) })},
	{name: "puppet_run_duration_seconds", help: "How long that run took.", labels: []string{"reason"},
		read: newest(func(r admin.PuppetRun) float64 { return r.Duration().Seconds() })},
	{name: "puppet_run_changed", help: "Resources that it changed, or would have.", labels: []string{"reason"},
		read: newest(func(r admin.PuppetRun) float64 { return float64(max(r.Resources.Changed, r.Resources.OutOfSync)) })},
	{name: "puppet_run_corrective", help: "Resources that were not as the commit that was there already wants them.", labels: []string{"reason"},
		read: newest(func(r admin.PuppetRun) float64 { return float64(r.Resources.Corrective) })},
	{name: "mail_journal_open", help: "Accepted messages that are not known to be mirrored or relayed.",
		read: journal(func(j admin.Journal) float64 { return float64(j.Open) })},
	{name: "mail_journal_refusing", help: "1 if senders are told to try again later.",
		read: journal(func(j admin.Journal) float64 { return truth(j.Refusing != "") })},
	{name: "mail_journal_second", help: "1 if another member takes the second copies.",
		read: journal(func(j admin.Journal) float64 { return truth(j.Second != "") })},
	{name: "mail_journal_behind", help: "Members that may hold mail from before the last takeover and could not be asked yet.",
		read: journal(func(j admin.Journal) float64 { return float64(len(j.Behind)) })},
	{name: "ledger_usable", help: "1 if the ledger is sound and answered the newest request.",
		read: func(r reading, e emit) {
			if r.status.Ledger.Configured {
				e(truth(r.status.Ledger.Usable))
			}
		}},
	{name: "ledger_age_seconds", help: "Time since the newest reading of the ledger was asked for.",
		read: func(r reading, e emit) {
			if r.view.Ledger.ReadSent != 0 {
				e(seconds(r.status.Ledger.Age))
			}
		}},
	{name: "zone_age_seconds", help: "Time since the newest reading of the zone was asked for.", labels: []string{"zone"},
		read: zones(func(z admin.Zone) float64 { return seconds(z.Age) })},
	{name: "zone_records", help: "Records of ours that the zone publishes.", labels: []string{"zone"},
		read: zones(func(z admin.Zone) float64 { return float64(z.Records) })},
	{name: "build_info", help: "1, with the version of the sidecar.", labels: []string{"version"},
		read: func(r reading, e emit) { e(1, r.version) }},
	{name: "control_looks_total", help: "Times that the control repo's origin was asked for its newest commit.", counter: true,
		read: looks(func(r reading) uint64 { return r.looks })},
	{name: "control_bytes_total", help: "Bytes sent to and received from the control repo's sources, without the headers of TCP and IP.", counter: true,
		read: looks(func(r reading) uint64 { return r.lookBytes })},
	{name: "beats_sent_total", help: "Datagrams sent to other members.", counter: true,
		read: beats(func(s keepalive.Stats, e emit) { e(float64(s.Sent.Packets)) })},
	{name: "beats_sent_bytes_total", help: "Bytes sent to other members, without the headers of UDP and IP.", counter: true,
		read: beats(func(s keepalive.Stats, e emit) { e(float64(s.Sent.Bytes)) })},
	{name: "beats_received_total", help: "Datagrams received.", counter: true,
		read: beats(func(s keepalive.Stats, e emit) { e(float64(s.Received.Packets)) })},
	{name: "beats_received_bytes_total", help: "Bytes received, without the headers of UDP and IP.", counter: true,
		read: beats(func(s keepalive.Stats, e emit) { e(float64(s.Received.Bytes)) })},
	{name: "beats_unsent_total", help: "Datagrams that the kernel did not take.", counter: true,
		read: beats(func(s keepalive.Stats, e emit) { e(float64(s.Unsent)) })},
	{name: "beats_refused_total", help: "Received datagrams that did not count.", labels: []string{"reason"}, counter: true,
		read: beats(func(s keepalive.Stats, e emit) {
			for reason, n := range s.Refused {
				e(float64(n), string(reason))
			}
		})},
	{name: "beats_missed_total", help: "Times that two beats in a row failed to come.", labels: []string{"node"}, counter: true,
		read: beats(func(s keepalive.Stats, e emit) {
			for peer, of := range s.Peers {
				e(float64(of.Missed), peer)
			}
		})},
}

func changing(r reading, e emit) {
	n := 0
	for _, a := range r.plan.Actions {
		if !a.Routine {
			n++
		}
	}
	e(float64(n))
}

func voting(r reading, e emit) {
	for _, n := range r.status.Nodes {
		if n.Name == r.status.Node {
			e(truth(n.Voting))
		}
	}
}

func held(r reading, e emit) {
	for _, of := range r.status.Roles {
		if of.Duty {
			e(truth(of.Primary == r.status.Node), of.Name)
		}
	}
	e(truth(r.status.Coordinator == r.status.Node), "@cluster")
}

func gates(r reading, e emit) {
	for role, g := range r.view.Gates {
		e(max(0, g.Until.Sub(r.view.Now).Seconds()), role)
	}
}

// lags are told by those that copy.
func lags(r reading, e emit) {
	lag := func(node string, mirrors []cluster.Mirror) {
		for _, m := range mirrors {
			switch {
			case m.Source:
			case m.Lag == cluster.Forever:
				e(math.Inf(1), node)
			default:
				e(m.Lag.Seconds(), node)
			}
		}
	}
	lag(r.status.Node, r.view.Mirrors)
	for name, peer := range r.view.Peers {
		lag(name, peer.Said.Mirrors)
	}
}

// rollout reads from what is known of the newest commit, where there is one.
func rollout(value func(admin.Rollout) float64) func(reading, emit) {
	return func(r reading, e emit) {
		if r.status.Rollout.Commit != "" {
			e(value(r.status.Rollout))
		}
	}
}

// newest reads from the newest run for each reason.
func newest(value func(admin.PuppetRun) float64) func(reading, emit) {
	return func(r reading, e emit) {
		told := map[string]bool{}
		for _, run := range r.runs {
			why := run.Why
			if run.Noop && why == "drift" {
				why = "look"
			}
			if !told[why] {
				told[why] = true
				e(value(run), why)
			}
		}
	}
}

// looks are counted where a control repo is followed.
func looks(value func(reading) uint64) func(reading, emit) {
	return func(r reading, e emit) {
		if r.follows {
			e(float64(value(r)))
		}
	}
}

// verified are the directories that have been read as a whole here, whoever the primary is.
func verified(value func(admin.Directory) float64) func(reading, emit) {
	return func(r reading, e emit) {
		if r.data == nil {
			return
		}
		for _, d := range r.data.Directories {
			if !d.Verified.IsZero() {
				e(value(d), d.Path)
			}
		}
	}
}

// directories are told by the primary, while it is one.
func directories(value func(admin.Directory) float64) func(reading, emit) {
	return func(r reading, e emit) {
		if r.data == nil || r.data.Primary == "" {
			return
		}
		for _, d := range r.data.Directories {
			e(value(d), d.Path)
		}
	}
}

func connections(r reading, e emit) {
	for role, s := range r.view.Sockets {
		e(float64(s.Established), role)
	}
}

// journal reads from the mail journal, where one runs.
func journal(value func(admin.Journal) float64) func(reading, emit) {
	return func(r reading, e emit) {
		if r.journal != nil {
			e(value(*r.journal))
		}
	}
}

func roles(of func(admin.Role) (float64, bool)) func(reading, emit) {
	return func(r reading, e emit) {
		for _, role := range r.status.Roles {
			if v, ok := of(role); ok {
				e(v, role.Name)
			}
		}
	}
}

func nodes(of func(reading, admin.Node) (float64, []string, bool)) func(reading, emit) {
	return func(r reading, e emit) {
		for _, n := range r.status.Nodes {
			if v, labels, ok := of(r, n); ok {
				e(v, labels...)
			}
		}
	}
}

func zones(of func(admin.Zone) float64) func(reading, emit) {
	return func(r reading, e emit) {
		for _, z := range r.status.Zones {
			if z.Known {
				e(of(z), z.Name)
			}
		}
	}
}

func beats(of func(keepalive.Stats, emit)) func(reading, emit) {
	return func(r reading, e emit) {
		if r.beats != nil {
			of(*r.beats, e)
		}
	}
}
