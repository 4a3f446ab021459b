package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

const (
	maxRequest = 4 << 10
	maxName    = 253 // RFC 1035: a domain name, which no node's or role's name exceeds
)

// Move asks for a switchover.
type Move struct {
	Role string `json:"role"`
	To   string `json:"to,omitempty"` // empty: whoever is best
}

// Access asks for an operator's certificate.
type Access struct {
	For Duration `json:"for"` // from a minute to 10 years; zero: 30 days
}

// Pause asks a node to only observe, or to act again.
type Pause struct {
	// Everywhere: the node passes the order on to every other member and tells what became of it.
	Everywhere bool `json:"everywhere,omitempty"`
}

func decodeMove(r io.Reader) (Move, error) {
	var m Move
	if err := decode(r, &m); err != nil {
		return Move{}, err
	}
	switch {
	case m.Role == "":
		return Move{}, errors.New("role is missing")
	case len(m.Role) > maxName || len(m.To) > maxName:
		return Move{}, fmt.Errorf("a name has more than %d bytes", maxName)
	}
	return m, nil
}

func decodeAccess(r io.Reader) (Access, error) {
	a := Access{}
	if err := decode(r, &a); err != nil {
		return Access{}, err
	}
	if a.For == 0 {
		a.For = Duration(30 * 24 * time.Hour)
	}
	if d := time.Duration(a.For); d < time.Minute || d > 10*365*24*time.Hour {
		return Access{}, fmt.Errorf("for %v: must be from 1m to 87600h (ten years)", d)
	}
	return a, nil
}

// decode reads one JSON object of known keys and nothing else. An empty body stands for {}.
func decode(r io.Reader, into any) error {
	body, err := io.ReadAll(io.LimitReader(r, maxRequest+1))
	switch {
	case err != nil:
		return err
	case len(body) > maxRequest:
		return fmt.Errorf("the body has more than %d bytes", maxRequest)
	case !utf8.Valid(body): // encoding/json would put replacement characters
		return errors.New("the body is not UTF-8")
	}
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		body = []byte("{}")
	}
	if body[0] != '{' {
		return errors.New("the body must be a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the body is not what this wants: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}
