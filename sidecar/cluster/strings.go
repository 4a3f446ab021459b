package cluster

import "fmt"

var (
	phases = [...]string{"unknown", "booting", "applied", "serving", "draining", "stopping"}
	health = [...]string{"unknown", "healthy", "unhealthy"}
	holds  = [...]string{"", "waiting", "held", "offered", "released"}
)

// String is the word for people and for JSON.
func (p Phase) String() string { return word(phases[:], int(p)) }

// String is the word for people and for JSON.
func (h Health) String() string { return word(health[:], int(h)) }

// String is the word for people and for JSON.
func (h HoldState) String() string { return word(holds[:], int(h)) }

// MarshalText makes JSON show the word.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// MarshalText makes JSON show the word.
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// MarshalText makes JSON show the word.
func (h HoldState) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

func word(words []string, i int) string {
	if i < len(words) {
		return words[i]
	}
	return fmt.Sprintf("%d", i)
}
