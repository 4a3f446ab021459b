//go:build linux

package sidecars

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"understudy/sidecar/ledger"
	"understudy/tests/netns/wire"
)

// Step is something done in a replacement, as the store or the provider took it: an object that was written, or an order.
type Step struct {
	What string // intent, tombstone, power off, call, create, claim, delete, close
	Node string // whom it is about
	By   int    // the machine that asked
}

// String is short, for lists of steps.
func (s Step) String() string { return fmt.Sprintf("%s %s by %d", s.What, s.Node, s.By) }

// objects are the steps that are written into the ledger, by the kinds of objects.
var objects = map[string]string{"intents": "intent", "tombstones": "tombstone", "calls": "call", "claims": "claim", "closed": "close"}

// steps looks on at what is asked of the store and of the provider.
type steps struct {
	h *Hired

	mu    sync.Mutex
	taken []Step
	after func(Step)
}

// After lets a test do something when a step has been taken and before whoever asked for it gets the answer. It is called by the
// server, so it must not end the test.
func (h *Hired) After(do func(Step)) {
	h.steps.mu.Lock()
	defer h.steps.mu.Unlock()
	h.steps.after = do
}

// Steps are all that were taken since everybody served.
func (h *Hired) Steps() []Step {
	h.steps.mu.Lock()
	defer h.steps.mu.Unlock()
	return append([]Step(nil), h.steps.taken...)
}

// Count is how many of them are of a kind.
func (h *Hired) Count(what string) int {
	n := 0
	for _, s := range h.Steps() {
		if s.What == what {
			n++
		}
	}
	return n
}

// Await waits until a step of a kind has been taken.
func (h *Hired) Await(what string, within time.Duration) {
	h.t.Helper()
	wire.EventuallyEvery(h.t, 50*time.Millisecond, within, func() error {
		if h.Count(what) == 0 {
			return fmt.Errorf("there is no %s; steps: %v", what, h.Steps())
		}
		return nil
	})
}

func (s *steps) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = nil
}

// watch notes the steps among the requests that a server gets and does.
func (s *steps) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler) // who asked is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		step, is := s.read(r, body)
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		if is && answer.Code/100 == 2 {
			s.take(step)
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // who asked may be gone
	})
}

// read says which step a request is.
func (s *steps) read(r *http.Request, body []byte) (Step, bool) {
	step := Step{}
	if m, ok := s.h.Cloud.MachineByAddr(from(r)); ok {
		step.By = m.ID
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	var order struct{ Name, Type string }
	switch {
	case r.Method == http.MethodPut && len(parts) == 5 && parts[0] == bucket: // bucket/cluster/kind/node/number
		step.What, step.Node = objects[parts[2]], parts[3]
	case r.Method == http.MethodPost && r.URL.Path == "/v2/droplets":
		if json.Unmarshal(body, &order) == nil {
			step.What, step.Node = "create", order.Name
		}
	case r.Method == http.MethodDelete && path.Dir(r.URL.Path) == "/v2/droplets":
		step.What, step.Node = "delete", s.h.called(parts[2])
	case r.Method == http.MethodPost && len(parts) == 4 && parts[3] == "actions":
		if json.Unmarshal(body, &order) == nil && order.Type == "power_off" {
			step.What, step.Node = "power off", s.h.called(parts[2])
		}
	}
	return step, step.What != ""
}

// called is the name of a machine.
func (h *Hired) called(id string) string {
	for _, m := range h.Cloud.Machines() {
		if strconv.Itoa(m.ID) == id {
			return m.Name
		}
	}
	return "machine " + id
}

// take notes a step. Whoever claims an identity must be the only one who runs under that name: every other machine of it has
// no power then, and gets none any more, so that no two of them can ever act.
func (s *steps) take(step Step) {
	if running := s.h.running(step.Node); step.What == "claim" && (len(running) != 1 || running[0] != step.By) {
		s.h.t.Errorf("%s: at that moment there run %v", step, running)
	}
	s.mu.Lock()
	s.taken = append(s.taken, step)
	after := s.after
	s.mu.Unlock()
	if after != nil {
		after(step)
	}
}

// Whole waits until every node has exactly one machine, which runs and has the only claim that stands, no replacement is open,
// and every node says that the cluster is redundant.
func (h *Hired) Whole(within time.Duration) {
	h.t.Helper()
	h.WholeKeeping(0, within)
}

// WholeKeeping is Whole with so many machines more that are off and kept for their data.
func (h *Hired) WholeKeeping(kept int, within time.Duration) {
	h.t.Helper()
	began := time.Now()
	wire.EventuallyEvery(h.t, 200*time.Millisecond, within, func() error {
		ids, err := h.machineOfEach()
		if n := len(h.Cloud.Machines()); err == nil && n != len(h.Nodes)+kept {
			err = fmt.Errorf("there are %d machines", n)
		}
		if err != nil {
			return fmt.Errorf("%w; steps: %v", err, h.Steps())
		}
		for _, id := range ids {
			st, err := h.Status(id)
			if err == nil && !st.Redundant {
				err = fmt.Errorf("%s says: %v, blocked: %v", st.Node, st.Why, st.Blocked)
			}
			if err != nil {
				return fmt.Errorf("%w; steps: %v", err, h.Steps())
			}
		}
		return h.written(ids)
	})
	h.t.Logf("whole after %v; steps: %v", time.Since(began).Round(100*time.Millisecond), h.Steps())
}

// machineOfEach is the one machine that every node has.
func (h *Hired) machineOfEach() (map[string]int, error) {
	ids := map[string]int{}
	for _, m := range h.Cloud.Machines() {
		if m.Status == "off" {
			continue // kept, for its data
		}
		if other, there := ids[m.Name]; there {
			return nil, fmt.Errorf("%s has the machines %d and %d", m.Name, other, m.ID)
		}
		ids[m.Name] = m.ID
	}
	for _, node := range h.Nodes {
		if id := ids[node]; id == 0 || len(h.running(node)) != 1 || h.running(node)[0] != id {
			return nil, fmt.Errorf("%s has machine %d, and there run %v", node, id, h.running(node))
		}
	}
	return ids, nil
}

// written checks what the ledger says.
func (h *Hired) written(ids map[string]int) error {
	store := h.Host("store").NS
	s3, err := ledger.NewS3(ledger.S3Config{Endpoint: h.storeURL(), Bucket: bucket, Keys: h.keys, Dial: numeric(store.Dial)})
	if err != nil {
		return err
	}
	r, err := ledger.New(s3, "test").Read(h.t.Context())
	if err != nil {
		return err
	}
	for _, node := range h.Nodes {
		if c := r.Claims[node]; c.Machine != strconv.Itoa(ids[node]) || c.Tombstoned {
			return fmt.Errorf("%s is machine %d, and its claim is %+v", node, ids[node], c)
		}
		if in := r.Intents[node]; in.Open() {
			return fmt.Errorf("the replacement of %s is open", node)
		}
	}
	return nil
}
