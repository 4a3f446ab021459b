package secrets

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestSecretHidesInEveryFormat(t *testing.T) {
	s := NewSecret(canary)
	type hidden struct{ s Secret }
	type open struct{ S Secret }
	b := Bundle{ClusterKey: s, Provider: map[string]Secret{"p": s}, TSIG: map[string]TSIGKey{"k": {Secret: s}},
		Restic: s, Ledger: LedgerKeys{AccessKey: s, SecretKey: s}, Files: map[string]map[string]Secret{"g": {"f": s}}}
	values := []any{s, &s, []Secret{s}, map[string]Secret{"k": s}, hidden{s}, &hidden{s}, open{s}, &open{s}, b, &b,
		fmt.Errorf("wrapped: %w", errors.New(s.String())), map[Secret]int{s: 1}}
	mustHide(t, values...)

	for _, v := range values {
		for name, marshal := range map[string]func(any) ([]byte, error){"json": json.Marshal, "yaml": yaml.Marshal, "xml": xml.Marshal} {
			out, err := marshal(v)
			if bytes.Contains(out, []byte("CANARY")) || err != nil && strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%s of %T shows the secret: %s", name, v, out)
			}
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v, slog.Group("g", "v", v))
		if strings.Contains(log.String(), "CANARY") {
			t.Errorf("slog of %T shows the secret: %s", v, log.String())
		}
	}
	if got := fmt.Sprintf("%v %s %q %x %d %#v", s, s, s, s, s, s); got != strings.TrimSpace(strings.Repeat("REDACTED ", 6)) {
		t.Errorf("got %q, want REDACTED for every verb", got)
	}
}

func TestSecretKeepsItsValue(t *testing.T) {
	for _, value := range []string{"", "x", "\x00\xff\n", canary} {
		s := NewSecret(value)
		if got := s.Reveal(); got != value {
			t.Errorf("Reveal: got %q, want %q", got, value)
		}
		if s.IsZero() != (value == "") {
			t.Errorf("IsZero of %q is %v", value, s.IsZero())
		}
		if !s.Equal(NewSecret(value)) || s.Equal(NewSecret(value+"x")) {
			t.Errorf("Equal is wrong for %q", value)
		}
		if !reflect.DeepEqual(s, NewSecret(value)) {
			t.Errorf("equal secrets differ deeply: %q", value)
		}
	}
}
