package secrets

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// redacted is what every way of printing a Secret shows.
const redacted = "REDACTED"

// Secret is a string that does not print. Every formatting verb, and the JSON, YAML, text and slog encoders show
// REDACTED; Reveal is the only way to the value, so a reviewer finds each use by searching for one word. The value
// sits behind a pointer, because package fmt walks straight into an unexported field of another struct without asking
// its Format method, and then shows the address.
//
// The zero Secret is empty. Secrets compare by Equal, never by ==, which would compare addresses.
type Secret struct{ value *string }

// NewSecret hides value, which may hold any bytes. The empty string gives the zero Secret.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{value: &value}
}

// Reveal returns the value. The caller hands it to the one function that needs it and keeps it out of errors and logs.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero says whether the secret is empty. Its name is the one encoders look for when they omit empty fields.
func (s Secret) IsZero() bool { return s.value == nil }

// Equal compares in time that depends on the lengths only.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// String implements fmt.Stringer, for code that calls it directly.
func (Secret) String() string { return redacted }

// Format implements fmt.Formatter. It comes before all other methods, for every verb and flag.
func (Secret) Format(f fmt.State, _ rune) { writeRedacted(f, redacted) }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler; JSON uses it for map keys, XML and others for values.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalYAML implements yaml.Marshaler. The real content of a bundle is written by Bundle.Marshal alone.
func (Secret) MarshalYAML() (any, error) { return redacted, nil }

// writeRedacted ignores the error of Write: fmt keeps formatted text in memory and has no use for one.
func writeRedacted(f fmt.State, text string) { _, _ = io.WriteString(f, text) }
