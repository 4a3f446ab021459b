package localcloud

import (
	"sync"
	"time"
)

// A limiter counts the requests of each token as DigitalOcean documents it: every request is remembered for an hour,
// ratelimit-reset says when the oldest one is forgotten, and besides there is a limit per minute.
// https://docs.digitalocean.com/reference/api/reference/#rate-limit
type limiter struct {
	limit RateLimit

	mu sync.Mutex
	// spent holds, for each token, when its requests of the last hour came, oldest first.
	spent map[string][]time.Time
}

// allowance is what a token has left.
type allowance struct {
	limit, remaining int
	reset            time.Time
}

// take counts one request of token at now. The error is a 429; a refused request is not counted.
func (l *limiter) take(token string, now time.Time) (allowance, *apiError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	hourAgo, minuteAgo := now.Add(-time.Hour), now.Add(-time.Minute)
	spent := l.spent[token]
	for len(spent) > 0 && !spent[0].After(hourAgo) {
		spent = spent[1:]
	}
	lately := 0
	for i := len(spent) - 1; i >= 0 && spent[i].After(minuteAgo); i-- {
		lately++
	}
	var refusal *apiError
	switch {
	case l.limit.PerHour > 0 && len(spent) >= l.limit.PerHour:
		refusal = tooMany(0)
	case l.limit.PerMinute > 0 && lately >= l.limit.PerMinute:
		oldest := spent[len(spent)-lately]
		refusal = tooMany(oldest.Add(time.Minute).Sub(now))
	case l.limit.PerHour > 0 || l.limit.PerMinute > 0:
		spent = append(spent, now)
	}
	if l.spent == nil {
		l.spent = map[string][]time.Time{}
	}
	l.spent[token] = spent
	return l.left(spent, now), refusal
}

// left says what is left after the given requests. Without a limit per hour DigitalOcean's is shown, untouched.
func (l *limiter) left(spent []time.Time, now time.Time) allowance {
	a := allowance{limit: l.limit.PerHour, remaining: l.limit.PerHour - len(spent), reset: now.Add(time.Hour)}
	if l.limit.PerHour == 0 {
		a.limit, a.remaining = 5000, 5000
	}
	if len(spent) > 0 {
		a.reset = spent[0].Add(time.Hour)
	}
	return a
}
