package admin

import (
	"fmt"
	"strings"
	"time"
)

// Duration is a time.Duration that JSON shows as time.ParseDuration reads it, rounded to a millisecond.
type Duration time.Duration

// MarshalText is what JSON shows.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).Round(time.Millisecond).String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Words is a duration as people read it: "850ms", "3.2s", "2m5s", "1m", "3h12m", "4 days".
func Words(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return trim(d.Round(time.Second))
	case d < 2*day:
		return trim(d.Round(time.Minute))
	}
	return fmt.Sprintf("%d days", (d+day/2)/day)
}

// trim leaves out minutes and seconds at the end that are zero.
func trim(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// list joins names as people do: "a", "a and b", "a, b and c".
func list(names []string) string {
	switch len(names) {
	case 0:
		return "nobody"
	case 1:
		return names[0]
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// have is names with the verb that follows them.
func have(names []string) string {
	if len(names) == 1 {
		return names[0] + " has"
	}
	return list(names) + " have"
}
