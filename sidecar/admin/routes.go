package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"understudy/sidecar/decide"
)

// Origin says from where a request may come.
type Origin bool

// Origins. What hands out keys is answered on the node only.
const (
	Local  Origin = false
	Remote Origin = true
)

// Moving is the answer to a switchover that was ordered: it is under way, not done.
type Moving struct {
	Role  string `json:"role"`
	From  string `json:"from"` // who has the duty
	Epoch uint64 `json:"epoch"`
	To    string `json:"to"` // empty: whoever is best
}

const incidentsTimeout = 20 * time.Second

// Handler is the API as it is answered to an origin.
func (s *Server) Handler(from Origin) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK)(s.status(r)) })
	mux.HandleFunc("GET /v1/plan", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK)(s.plan()) })
	mux.HandleFunc("GET /v1/incidents", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK)(s.incidents(r.Context())) })
	mux.HandleFunc("POST /v1/switchover", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusAccepted)(s.switchover(r)) })
	mux.HandleFunc("POST /v1/chaos", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK)(s.destroy(r)) })
	mux.HandleFunc("POST /v1/pause", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK)(s.pause(r, true)) })
	mux.HandleFunc("POST /v1/resume", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK)(s.pause(r, false)) })
	mux.HandleFunc("POST /v1/recover", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK)(s.wish(r, toKeep)) })
	mux.HandleFunc("POST /v1/discard", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK)(s.wish(r, toDiscard)) })
	mux.HandleFunc("POST /v1/sync", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK)(s.sync(r)) })
	mux.HandleFunc("POST /v1/apply", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusAccepted)(s.apply(r)) })
	mux.HandleFunc("GET /v1/runs", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK)(s.runs()) })
	mux.HandleFunc("GET /v1/ledger", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK)(s.remembered()) })
	mux.HandleFunc("POST /v1/ledger/reseed", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK)(s.reseed(r)) })
	mux.HandleFunc("GET /healthz", s.healthz)
	if s.cfg.Metrics != nil {
		mux.Handle("GET /metrics", s.cfg.Metrics)
	}
	if from == Local && s.cfg.Authority != nil {
		mux.HandleFunc("POST /v1/access", s.access)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem(http.StatusNotFound, "no such route", "%s %.100q is not part of this API", r.Method, r.URL.Path).write(w)
	})
	return mux
}

// answer writes a value, or the error that came instead of it.
func answer(w http.ResponseWriter, status int) func(any, error) {
	return func(v any, err error) {
		var p *Problem
		switch {
		case errors.As(err, &p):
			p.write(w)
			return
		case err != nil:
			problem(http.StatusBadGateway, "could not find out", "%v", err).write(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		_ = e.Encode(v) // the asker is gone if this fails
	}
}

func badRequest(err error) error {
	return problem(http.StatusBadRequest, "request not understood", "%v", err)
}

// turn is the newest turn of the loop, if there was one.
func (s *Server) turn() (decide.Policy, decide.View, decide.Decision, time.Time, error) {
	p, v, d, at := s.cfg.Backend.Snapshot()
	if at.IsZero() {
		return p, v, d, at, problem(http.StatusServiceUnavailable, "not ready", "the sidecar has just started and has not looked around yet; ask again in a moment")
	}
	return p, v, d, at, nil
}

func (s *Server) plan() (Plan, error) {
	p, v, d, at, err := s.turn()
	if err != nil {
		return Plan{}, err
	}
	plan := NewPlan(p, v, d)
	plan.Cluster, plan.At, plan.Age = s.cfg.Cluster, at, Duration(time.Since(at))
	return plan, nil
}

func (s *Server) incidents(ctx context.Context) (Incidents, error) {
	ctx, cancel := context.WithTimeout(ctx, incidentsTimeout)
	defer cancel()
	all, err := s.cfg.Backend.Incidents(ctx)
	if err != nil {
		return Incidents{}, fmt.Errorf("read the incidents: %w", err)
	}
	all = some(slices.Clone(all))
	for i := range all {
		all[i].Phases = some(all[i].Phases)
	}
	return Incidents{Incidents: all}, nil
}

func (s *Server) access(w http.ResponseWriter, r *http.Request) {
	a, err := decodeAccess(r.Body)
	if err != nil {
		answer(w, 0)(nil, badRequest(err))
		return
	}
	now := time.Now()
	end := now.Add(time.Duration(a.For))
	cert, err := s.cfg.Authority.Operator(now, end)
	if err != nil {
		answer(w, 0)(nil, err)
		return
	}
	text, err := WritePEM(cert)
	if err != nil {
		answer(w, 0)(nil, err)
		return
	}
	s.cfg.Log.Info("made an operator's certificate", "until", end)
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write(text) // the asker is gone if this fails
}

// healthz says whether the loop turns.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	_, _, _, at, err := s.turn()
	if age := time.Since(at); err == nil && age > staleAfter {
		err = problem(http.StatusServiceUnavailable, "stuck", "the loop has not turned for %s", Words(age))
	}
	if err != nil {
		answer(w, 0)(nil, err)
		return
	}
	_, _ = io.WriteString(w, "ok\n") // the asker is gone if this fails
}
