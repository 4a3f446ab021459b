package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Problem is an answer that says no, as RFC 9457 has it.
type Problem struct {
	Title  string `json:"title"` // a constant phrase
	Status int    `json:"status"`
	Detail string `json:"detail"` // one sentence, with the next thing to do where there is one
}

func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

func problem(status int, title, format string, args ...any) *Problem {
	return &Problem{Title: title, Status: status, Detail: fmt.Sprintf(format, args...)}
}

func (p *Problem) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the asker is gone if this fails
}
