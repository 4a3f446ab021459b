package digitalocean

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/digitalocean/godo"

	"understudy/sidecar/cloud"
)

// maxRetryAfter bounds what the provider can make us wait.
const maxRetryAfter = time.Hour

// explain puts what a caller acts upon in front of godo's error, which names request, status and message. The texts are
// those of users' reports: godo and the API description have no codes for them.
func explain(err error) error {
	var said *godo.ErrorResponse
	if !errors.As(err, &said) {
		return err
	}
	switch status := said.Response.StatusCode; {
	case isGone(err):
		return fmt.Errorf("%w: %w", cloud.ErrGone, err)
	case status == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", &cloud.RateLimitedError{RetryAfter: retryAfter(said.Response)}, err)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fmt.Errorf("%w: %w", cloud.ErrDenied, err)
	case status == http.StatusUnprocessableEntity && says(said, "pending event"):
		return fmt.Errorf("%w: %w", cloud.ErrPending, err)
	}
	return err
}

// isGone reports whether DigitalOcean itself says that a thing does not exist: a proxy's or a wrong endpoint's 404 has not
// its error id.
func isGone(err error) bool {
	var said *godo.ErrorResponse
	return errors.As(err, &said) && said.Response.StatusCode == http.StatusNotFound &&
		said.Response.Header.Get(errorID) == "not_found"
}

// refusedAs reports whether err is a 422 whose message contains text.
func refusedAs(err error, text string) bool {
	var said *godo.ErrorResponse
	return errors.As(err, &said) && said.Response.StatusCode == http.StatusUnprocessableEntity && says(said, text)
}

func says(e *godo.ErrorResponse, text string) bool {
	return strings.Contains(strings.ToLower(e.Message), text)
}

// retryAfter reads the header that comes with bursts only, in whole seconds.
func retryAfter(r *http.Response) time.Duration {
	n, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(min(n, int(maxRetryAfter/time.Second)))*time.Second, maxRetryAfter)
}
