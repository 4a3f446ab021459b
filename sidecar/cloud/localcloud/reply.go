package localcloud

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// A reply is what a handler wants to be sent. A nil body sends none.
type reply struct {
	status int
	body   any
	// retryAfter sends the header of that name, in whole seconds; zero sends none.
	retryAfter time.Duration
	// hangUp closes the connection instead of answering.
	hangUp bool
}

// apiError is an answer that is not a success, in DigitalOcean's form {id, message, request_id}.
type apiError struct {
	status     int
	id         string
	message    string
	retryAfter time.Duration
	// rootCauses makes the other form {error, messages, root_causes}, which the tags API uses.
	rootCauses []string
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s: %s", e.status, e.id, e.message) }

// The texts are DigitalOcean's own where it documents them or users reported them; a comment says where they are
// ours because nothing is known.
var (
	errNotFound     = &apiError{status: http.StatusNotFound, id: "not_found", message: "The resource you requested could not be found."}
	errUnauthorized = &apiError{status: http.StatusUnauthorized, id: "unauthorized", message: "Unable to authenticate you."}
	errForbidden    = &apiError{status: http.StatusForbidden, id: "forbidden", message: "You are not authorized to perform this operation"}
	errBadBody      = &apiError{status: http.StatusBadRequest, id: "bad_request", message: "error parsing request body"}
	// Ours: the description names no limit of the request body.
	errTooLarge = &apiError{status: http.StatusRequestEntityTooLarge, id: "request_entity_too_large", message: "The request body is too large."}
	errPending  = unprocessable("Droplet already has a pending event.")
	errIPLocked = unprocessable("The floating IP already has a pending event.")
	errLimit    = unprocessable("creating this/these droplet(s) will exceed your droplet limit")
	errNoSize   = unprocessable("Size is not available in this region.")
)

// unprocessable makes DigitalOcean's answer to a request that is well formed and still cannot be done.
func unprocessable(message string) *apiError {
	return &apiError{status: http.StatusUnprocessableEntity, id: "unprocessable_entity", message: message}
}

// badRequest makes the answer to a request whose parameters contradict each other.
func badRequest(message string) *apiError {
	return &apiError{status: http.StatusBadRequest, id: "bad_request", message: message}
}

// tooMany makes a 429. DigitalOcean sends Retry-After only when the limit per minute was hit, not the one per hour.
func tooMany(retryAfter time.Duration) *apiError {
	return &apiError{status: http.StatusTooManyRequests, id: "too_many_requests", message: "API rate limit exceeded.", retryAfter: retryAfter}
}

// serverError makes a 5xx.
func serverError(status int) *apiError {
	return &apiError{status: status, id: "server_error", message: "Unexpected server-side error"}
}

func (e *apiError) reply(requestID string) reply {
	if len(e.rootCauses) > 0 {
		return reply{status: e.status, retryAfter: e.retryAfter, body: map[string]any{
			"error": e.message, "messages": nil, "root_causes": e.rootCauses,
		}}
	}
	return reply{status: e.status, retryAfter: e.retryAfter, body: map[string]string{
		"id": e.id, "message": e.message, "request_id": requestID,
	}}
}

// send writes r. An error in writing means that the client has gone; nobody is left to tell.
func (r reply) send(w http.ResponseWriter) {
	if r.hangUp {
		// net/http closes the connection without an answer and without a log line.
		panic(http.ErrAbortHandler)
	}
	if r.retryAfter > 0 {
		seconds := int64((r.retryAfter + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	if r.body == nil {
		// DigitalOcean sends a content type with its empty answers.
		w.Header().Set("Content-Type", jsonType)
		w.WriteHeader(r.status)
		return
	}
	data, err := json.Marshal(r.body)
	if err != nil {
		panic(fmt.Sprintf("localcloud: answer of type %T cannot be encoded: %v", r.body, err))
	}
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(r.status)
	_, _ = w.Write(append(data, '\n'))
}

const jsonType = "application/json; charset=utf-8"

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	// Read of crypto/rand never fails since Go 1.24.
	_, _ = rand.Read(b[:])
	return formatUUID(b)
}

func formatUUID(b [16]byte) string {
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// timestamp renders t as DigitalOcean does: UTC, whole seconds.
func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
