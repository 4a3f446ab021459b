package localcloud

import (
	"math/rand/v2"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

// FaultKind names one way in which a real cloud misbehaves.
type FaultKind string

// Faults that answer a request without doing it.
const (
	// PendingEvent is 422 "Droplet already has a pending event." (or "The floating IP ...") for actions and deletes.
	PendingEvent FaultKind = "pending-event"
	// RateLimited is 429; Delay, if any, is sent as Retry-After.
	RateLimited FaultKind = "rate-limited"
	// ServerError is a 5xx (Status, default 503) before anything was done.
	ServerError FaultKind = "server-error"
	// SizeUnavailable is 422 "Size is not available in this region." for creates; Size restricts it to one slug.
	SizeUnavailable FaultKind = "size-unavailable"
	// LimitReached is 422 "creating this/these droplet(s) will exceed your droplet limit".
	LimitReached FaultKind = "limit-reached"
	// Unauthorized is 401 for a good token, Forbidden is 403.
	Unauthorized FaultKind = "unauthorized"
	Forbidden    FaultKind = "forbidden"
	// ActionMissing is 404 for reading an action that exists.
	ActionMissing FaultKind = "action-missing"
	// AccountLocked shows the account as locked and refuses every change with 403.
	AccountLocked FaultKind = "account-locked"
)

// Faults that do what was asked and answer badly.
const (
	// LostAnswer is a 502 (or Status) after the request was carried out.
	LostAnswer FaultKind = "lost-answer"
	// HangUp closes the connection after the request was carried out.
	HangUp FaultKind = "hang-up"
	// Slow lets the request wait for Delay before it is carried out. A client that gives up in the meantime has asked
	// all the same.
	Slow FaultKind = "slow"
	// AcceptedThenGone answers 202 to a create; the droplet then never comes to be, and its ID is 404.
	AcceptedThenGone FaultKind = "accepted-then-gone"
	// ActionErrored lets the action that the request starts end as errored, without its effect.
	ActionErrored FaultKind = "action-errored"
	// SlowAction lets the action that the request starts take Delay longer.
	SlowAction FaultKind = "slow-action"
)

// Faults that show old or incomplete records. They touch lists only, except where a name says otherwise.
const (
	// ListLag leaves droplets out of lists until they are Delay old.
	ListLag FaultKind = "list-lag"
	// DeletedListed keeps droplets in lists until they are gone for Delay.
	DeletedListed FaultKind = "deleted-listed"
	// StaleList shows the droplets that existed Delay ago: ListLag and DeletedListed in one.
	StaleList FaultKind = "stale-list"
	// PartialList leaves out about Share of the entries of any list, at least one, and counts only the rest.
	PartialList FaultKind = "partial-list"
	// EmptyList answers 200 and no entries.
	EmptyList FaultKind = "empty-list"
	// NewMissing is 404 for reading a droplet by ID until it is Delay old.
	NewMissing FaultKind = "new-missing"
	// StatusLag shows a droplet's former status for Delay after its power changed, although the action is completed.
	// https://github.com/digitalocean/droplet_kit/issues/50
	StatusLag FaultKind = "status-lag"
)

// Match says which requests a fault may touch. Empty fields match everything that the kind makes sense for.
type Match struct {
	// Method is an HTTP method in upper case.
	Method string
	// Path is a pattern of path.Match for the URL's path, such as "/v2/droplets/*/actions".
	Path string
}

// Fault is one thing to go wrong.
type Fault struct {
	Kind  FaultKind
	Match Match
	// Skip lets that many matching requests pass first. Times is how many are then touched; zero means all, until
	// the fault is lifted.
	Skip, Times int
	// Chance is the probability that a matching request is touched at all; zero means always. The luck comes from
	// Options.Seed.
	Chance float64
	// Delay, Share, Status and Size are parameters of some kinds; see there.
	Delay  time.Duration
	Share  float64
	Status int
	Size   string
}

// Injection is a fault at work.
type Injection struct {
	faults *faults
	fault  Fault

	// Guarded by faults.mu.
	seen, hits int
	lifted     bool
}

// Lift ends the fault. It may be called more than once.
func (in *Injection) Lift() {
	in.faults.mu.Lock()
	defer in.faults.mu.Unlock()
	in.lifted = true
}

// Hits is how many requests the fault has touched.
func (in *Injection) Hits() int {
	in.faults.mu.Lock()
	defer in.faults.mu.Unlock()
	return in.hits
}

// Inject puts f to work for the requests that come after it.
func (s *Server) Inject(f Fault) *Injection {
	return s.faults.add(f)
}

// Storm returns one fault of each kind that a client must survive without help, each with the given chance. It is
// meant for seeded runs: inject them all, drive the client, look at what it made of it.
func Storm(chance float64, delay time.Duration) []Fault {
	kinds := []FaultKind{
		PendingEvent, RateLimited, ServerError, SizeUnavailable, ActionMissing, LostAnswer, HangUp, Slow,
		AcceptedThenGone, ActionErrored, SlowAction, ListLag, DeletedListed, PartialList, EmptyList, NewMissing, StatusLag,
	}
	storm := make([]Fault, len(kinds))
	for i, k := range kinds {
		storm[i] = Fault{Kind: k, Chance: chance, Delay: delay, Share: 0.3}
	}
	return storm
}

type faults struct {
	mu         sync.Mutex
	injections []*Injection
	luck       *rand.Rand
}

func newFaults(seed uint64) *faults {
	return &faults{luck: rand.New(rand.NewPCG(seed, 0x756e6465727374))}
}

func (fs *faults) add(f Fault) *Injection {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	in := &Injection{faults: fs, fault: f}
	fs.injections = append(fs.injections, in)
	return in
}

// float returns a number in [0, 1) from the seeded source.
func (fs *faults) float() float64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.luck.Float64()
}

// effects is what all faults together do to one request.
type effects struct {
	refusal       *apiError
	wait          time.Duration
	lost          *apiError
	hangUp        bool
	vanish        bool
	errored       bool
	slowAction    time.Duration
	hideYounger   time.Duration
	showGone      time.Duration
	omit          float64
	empty         bool
	newMissing    time.Duration
	statusLag     time.Duration
	accountLocked bool
	noSize        map[string]bool
}

// draw decides which faults touch a request and counts them.
func (fs *faults) draw(method, urlPath string) effects {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var fx effects
	kept := fs.injections[:0]
	for _, in := range fs.injections {
		f := in.fault
		if in.lifted || f.Times > 0 && in.hits >= f.Times {
			continue
		}
		kept = append(kept, in)
		if !f.touches(method, urlPath) {
			continue
		}
		if f.Chance > 0 && fs.luck.Float64() >= f.Chance {
			continue
		}
		if in.seen++; in.seen <= f.Skip {
			continue
		}
		in.hits++
		fx.add(f, method, urlPath)
	}
	clear(fs.injections[len(kept):])
	fs.injections = kept
	return fx
}

// touches reports whether f may touch a request, by its Match and by what its kind is about.
func (f Fault) touches(method, urlPath string) bool {
	if f.Match.Method != "" && f.Match.Method != method {
		return false
	}
	if f.Match.Path != "" {
		if ok, err := path.Match(f.Match.Path, urlPath); err != nil || !ok {
			return false
		}
	}
	create := method == http.MethodPost && urlPath == "/v2/droplets"
	read := method == http.MethodGet
	switch f.Kind {
	case SizeUnavailable, LimitReached, AcceptedThenGone:
		return create
	case PendingEvent:
		return !read && (strings.HasSuffix(urlPath, "/actions") || method == http.MethodDelete)
	case LostAnswer, HangUp, ActionErrored, SlowAction:
		return !read || f.Match.Method == http.MethodGet
	case ListLag, DeletedListed, StaleList:
		return read && urlPath == "/v2/droplets"
	case PartialList, EmptyList, StatusLag:
		return read
	case NewMissing:
		ok, _ := path.Match("/v2/droplets/*", urlPath)
		return read && ok
	case ActionMissing:
		return read && strings.Contains(urlPath, "/actions/")
	}
	return true
}

// add merges f into fx.
func (fx *effects) add(f Fault, method, urlPath string) {
	switch f.Kind {
	case PendingEvent:
		fx.refusal = errPending
		if strings.HasPrefix(urlPath, "/v2/reserved_ips") || strings.HasPrefix(urlPath, "/v2/floating_ips") {
			fx.refusal = errIPLocked
		}
	case RateLimited:
		fx.refusal = tooMany(f.Delay)
	case ServerError:
		fx.refusal = serverError(statusOr(f.Status, http.StatusServiceUnavailable))
	case LimitReached:
		fx.refusal = errLimit
	case Unauthorized:
		fx.refusal = errUnauthorized
	case Forbidden:
		fx.refusal = errForbidden
	case ActionMissing:
		fx.refusal = errNotFound
	case AccountLocked:
		fx.accountLocked = true
		if method != http.MethodGet {
			fx.refusal = errForbidden
		}
	case LostAnswer:
		fx.lost = serverError(statusOr(f.Status, http.StatusBadGateway))
	case HangUp:
		fx.hangUp = true
	case Slow:
		fx.wait += f.Delay
	default:
		fx.addToRecords(f)
	}
}

// addToRecords merges the kinds that change what a handler does or shows.
func (fx *effects) addToRecords(f Fault) {
	switch f.Kind {
	case SizeUnavailable:
		if fx.noSize == nil {
			fx.noSize = map[string]bool{}
		}
		fx.noSize[f.Size] = true
	case AcceptedThenGone:
		fx.vanish = true
	case ActionErrored:
		fx.errored = true
	case SlowAction:
		fx.slowAction += f.Delay
	case ListLag:
		fx.hideYounger = max(fx.hideYounger, f.Delay)
	case DeletedListed:
		fx.showGone = max(fx.showGone, f.Delay)
	case StaleList:
		fx.hideYounger = max(fx.hideYounger, f.Delay)
		fx.showGone = max(fx.showGone, f.Delay)
	case PartialList:
		fx.omit = max(fx.omit, f.Share)
	case EmptyList:
		fx.empty = true
	case NewMissing:
		fx.newMissing = max(fx.newMissing, f.Delay)
	case StatusLag:
		fx.statusLag = max(fx.statusLag, f.Delay)
	default:
		panic("localcloud: unknown fault kind " + string(f.Kind))
	}
}

// sizeMissing reports whether a fault says that slug cannot be had; the empty slug stands for every size.
func (fx *effects) sizeMissing(slug string) bool { return fx.noSize[slug] || fx.noSize[""] }

func statusOr(status, fallback int) int {
	if status == 0 {
		return fallback
	}
	return status
}
