package metrics

import (
	"flag"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"understudy/bootstrap/applied"
	"understudy/sidecar/admin"
	"understudy/sidecar/cluster"
	"understudy/sidecar/decide"
	"understudy/sidecar/keepalive"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const now = cluster.Instant(1e12)

// world is lb1, which has the duty, and lb2, which is silent, with a reading of everything there is a metric for.
func world() Config {
	p := decide.Policy{Self: "lb1", Nodes: []string{"lb1", "lb2", "web1"}, Roles: []decide.Role{
		{Name: "lb", Nodes: []string{"lb1", "lb2"}, Reserved: netip.MustParseAddr("203.0.113.10"), Primary: true},
		{Name: "web", Nodes: []string{"web1"}},
	}, Zones: []decide.Zone{{Key: "digitalocean blog.example"}, {Key: "never read"}}}
	good := cluster.Announcement{Phase: cluster.Serving, Health: cluster.Healthy, Voting: true}
	say := good
	say.Holds = []cluster.Hold{{Duty: "lb", Epoch: 4, State: cluster.Held}}
	copying := good
	copying.Mirrors = []cluster.Mirror{{Role: "lb", Lag: 1500 * time.Millisecond}}
	v := decide.View{
		Now:     now,
		Peers:   map[string]cluster.Peer{"lb2": {Heard: now.Add(-3 * time.Second), Said: copying}},
		Ledger:  decide.Ledger{Configured: true, Sound: true, ReadSent: now.Add(-2 * time.Second)},
		Zones:   map[string]decide.ZoneReading{"digitalocean blog.example": {At: now.Add(-time.Minute), Records: make([]cluster.Record, 3)}},
		Gates:   map[string]decide.GateReading{"lb": {Until: now.Add(380 * time.Millisecond)}},
		Sockets: map[string]decide.SocketReading{"lb": {Established: 17}},
	}
	d := decide.Decision{
		Say: say, Memory: decide.Memory{Verdicts: map[string]decide.Verdict{"lb2": {State: decide.Failed}}},
		Actions: []decide.Action{decide.StartDrain{Role: "lb"}, decide.ReadLedger{}},
		Blocked: []decide.Blocked{{What: "a", Why: "b"}},
	}
	d.Memory.Epochs = map[string]uint64{"lb": 4}
	v.Rollout = decide.RolloutReading{Head: "b", Refused: "it is not signed"}
	d.Say.Commit = "b"
	d.Memory.Rollout.Bad = []decide.Bad{{Commit: "b", Node: "lb2"}}
	beats := keepalive.Stats{
		Sent: keepalive.Traffic{Packets: 10, Bytes: 3000}, Received: keepalive.Traffic{Packets: 9, Bytes: 2700}, Unsent: 1,
		Refused: map[keepalive.Reason]uint64{keepalive.Reason("replayed"): 2}, Peers: map[string]keepalive.PeerStats{"lb2": {Missed: 5}},
	}
	at := time.Now()
	return Config{
		Log: slog.New(slog.DiscardHandler), Version: "1.2.3", Beats: func() keepalive.Stats { return beats },
		Looks: func() (uint64, uint64) { return 900, 600_000 },
		Runs: func() []admin.PuppetRun {
			return []admin.PuppetRun{
				{Why: "drift", Result: applied.Result{Noop: true, Took: "4s", Resources: applied.Resources{OutOfSync: 2, Corrective: 2}}},
				{Why: "rollout", Result: applied.Result{Took: "5s", Code: 31, Resources: applied.Resources{Changed: 3}}},
				{Why: "rollout", Result: applied.Result{Took: "9s"}},
			}
		},
		Data: func() *admin.RoleData {
			return &admin.RoleData{Role: "lb", Primary: "lb1", CaughtUp: true, Directories: []admin.Directory{{
				Path: "/srv/lb", Mirror: "lb2", Changes: 2, Bytes: 700, Waiting: []admin.Waiting{{}}, Refused: "it is empty", Watched: 40, Unwatched: 1, Overflows: 3, Verified: time.Now().Add(-time.Hour), Rotten: []string{"a"},
			}}}
		},
		Journal:  func() *admin.Journal { return &admin.Journal{Open: 12, Second: "web1", Behind: []string{"lb2"}} },
		Snapshot: func() (decide.Policy, decide.View, decide.Decision, time.Time) { return p, v, d, at },
	}
}

func scrape(t *testing.T, cfg Config) string {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(cfg).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("got %d, %v: %s", w.Code, err, body)
	}
	return string(body)
}

// ours is what of a scrape belongs to the table, without the two values that depend on the clock.
func ours(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, "understudy_") && !strings.HasPrefix(line, "understudy_turn_age_seconds ") && !strings.HasPrefix(line, "understudy_data_verified_age_seconds{") {
			out.WriteString(line)
		}
	}
	return out.String()
}

func TestTheScrapeIsTheGolden(t *testing.T) {
	got := ours(scrape(t, world()))
	if *update {
		if err := os.WriteFile("testdata/metrics.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/metrics.txt")
	if err != nil || got != string(want) {
		t.Errorf("%v: got\n%s\nwant\n%s", err, got, want)
	}
}

var (
	row  = regexp.MustCompile(`(?m)^//\tunderstudy_(.*)$`)
	next = regexp.MustCompile(`  +`)
)

// The package comment is the promise: it lists every metric with its kind and labels, and no other.
func TestThePackageCommentListsEveryMetric(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	rows := row.FindAllStringSubmatch(string(doc), -1)
	if len(rows) != len(table) {
		t.Fatalf("%d rows, %d metrics", len(rows), len(table))
	}
	for i, m := range table {
		want := []string{m.name, "gauge"}
		if m.counter {
			want[1] = "counter"
		}
		if len(m.labels) > 0 {
			want = append(want, strings.Join(m.labels, ", "))
		}
		got := next.Split(rows[i][1], -1)
		if !slices.Equal(got[:len(got)-1], want) {
			t.Errorf("row %d: got %q, want %q and a text", i+1, got, want)
		}
	}
}

// Every metric of the table has a sample when there is a reading for it, and follows Prometheus' conventions for names.
func TestEveryMetricIsTold(t *testing.T) {
	text := scrape(t, world())
	for _, m := range table {
		if !strings.Contains(text, "\nunderstudy_"+m.name+"{") && !strings.Contains(text, "\nunderstudy_"+m.name+" ") {
			t.Errorf("%s is missing", m.name)
		}
	}
	problems, err := promlint.New(strings.NewReader(ours(text))).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// What was not read has no sample: an absence is no zero.
func TestWithoutAReadingThereIsNoSample(t *testing.T) {
	text := scrape(t, world())
	for _, absent := range []string{`zone="never read"`, `role_has_primary{role="web"}`, `node_silence_seconds{node="lb1"}`, `node_silence_seconds{node="web1"}`, `node_lag_seconds{node="lb1"}`} {
		if strings.Contains(text, absent) {
			t.Errorf("there is %s", absent)
		}
	}
	cfg := world()
	cfg.Data = func() *admin.RoleData {
		return &admin.RoleData{Role: "lb", Directories: []admin.Directory{{Path: "/srv/lb"}}}
	}
	if text := scrape(t, cfg); strings.Contains(text, `directory="/srv/lb"`) || !strings.Contains(text, `understudy_data_caught_up{role="lb"} 0`) {
		t.Errorf("a mirror: got\n%s", ours(text))
	}
	cfg.Snapshot = func() (decide.Policy, decide.View, decide.Decision, time.Time) {
		return decide.Policy{}, decide.View{}, decide.Decision{}, time.Time{}
	}
	if text := scrape(t, cfg); strings.Contains(text, "understudy_redundant ") || !strings.Contains(text, "understudy_beats_sent_total 10") {
		t.Errorf("before the first turn: got\n%s", ours(text))
	}
}

// A loop that hangs knows nothing, whatever it knew.
func TestAHungLoopIsNotRedundant(t *testing.T) {
	cfg := world()
	p, v, d, _ := cfg.Snapshot()
	for age, want := range map[time.Duration]string{0: "understudy_redundant 1", time.Minute: "understudy_redundant 0"} {
		p.Roles = []decide.Role{{Name: "lb", Nodes: []string{"lb1"}}}
		cfg.Snapshot = func() (decide.Policy, decide.View, decide.Decision, time.Time) { return p, v, d, time.Now().Add(-age) }
		if text := scrape(t, cfg); !strings.Contains(text, want+"\n") {
			t.Errorf("age %v: want %s, got\n%s", age, want, ours(text))
		}
	}
}

func TestTheCollectorKeepsPrometheussRules(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newCollector(world()))
	if _, err := r.Gather(); err != nil {
		t.Error(err)
	}
}
