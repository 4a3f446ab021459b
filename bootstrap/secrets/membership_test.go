package secrets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"filippo.io/age"
	"go.yaml.in/yaml/v3"
)

func someMembership() Membership {
	return Membership{
		Identity:       must(age.GenerateX25519Identity()),
		AllowedSigners: []byte("ops@blog.example ssh-ed25519 AAAA\n"),
		OldestCommit:   strings.Repeat("0123456789", 4),
		Commit:         strings.Repeat("abcdef0123", 4),
	}
}

func TestMembershipComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "deep")
	if _, err := LoadMembership(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the join: got %v, want fs.ErrNotExist", err)
	}
	bare := someMembership()
	bare.AllowedSigners, bare.OldestCommit, bare.Commit = nil, "", ""
	for _, m := range []Membership{someMembership(), bare, someMembership()} {
		must(joinKey(dir))
		ok(os.WriteFile(filepath.Join(dir, ".identity.new"), []byte("torn"), 0o400)) // a crash's
		if err := SaveMembership(dir, m); err != nil {
			t.Fatal(err)
		}
		got, err := LoadMembership(dir)
		if err != nil || !sameMembership(got, m) {
			t.Errorf("got %v, %v; want %v", got, err, m)
		}
		want := map[string]string{"identity": "-r--------"}
		if m.OldestCommit != "" {
			want["allowed_signers"], want["oldest_commit"], want["pinned_commit"] = "-rw-r--r--", "-rw-r--r--", "-rw-r--r--"
		}
		modes := map[string]string{}
		for _, e := range must(os.ReadDir(dir)) {
			modes[e.Name()] = must(e.Info()).Mode().String()
		}
		if !reflect.DeepEqual(modes, want) {
			t.Errorf("files are %v, want %v", modes, want)
		}
	}
}

func TestTheCommitOfTheFirstBootIsForgotten(t *testing.T) {
	dir, m := t.TempDir(), someMembership()
	ok(SaveMembership(dir, m))
	for range 2 {
		ok(ForgetCommit(dir))
		m.Commit = ""
		if got := must(LoadMembership(dir)); !sameMembership(got, m) {
			t.Errorf("got %v, want %v", got, m)
		}
	}
	if err := ForgetCommit(filepath.Join(dir, "none")); err == nil {
		t.Error("got no error for a directory that is not there")
	}
}

func TestSaveMembershipStopsShortOfJoined(t *testing.T) {
	// Whatever fails before the last step, the node still counts as not joined and keeps its join key.
	for _, name := range []string{allowedSignersFile, oldestCommitFile, pinnedCommitFile, identityFile} {
		dir := t.TempDir()
		key := must(joinKey(dir))
		ok(os.MkdirAll(filepath.Join(dir, name, "in the way"), 0o700))
		if err := SaveMembership(dir, someMembership()); err == nil {
			t.Errorf("%s could not be written, and no error", name)
		}
		if _, err := LoadMembership(dir); err == nil {
			t.Errorf("%s could not be written, and the node counts as joined", name)
		}
		if again := must(joinKey(dir)); again.String() != key.String() {
			t.Errorf("%s could not be written, and the join key changed", name)
		}
	}
}

func TestMembershipRefusesRubbishWithoutQuotingIt(t *testing.T) {
	identity := must(age.GenerateX25519Identity()).String()
	for name, files := range map[string]map[string]string{
		"not an identity":  {identityFile: canary},
		"half of one":      {identityFile: identity[:30] + canary},
		"two":              {identityFile: identity + "\n" + must(age.GenerateX25519Identity()).String()},
		"a passphrase":     {identityFile: must(age.GenerateHybridIdentity()).String()},
		"empty":            {identityFile: "# nothing\n"},
		"large":            {identityFile: strings.Repeat("#", 1<<20)},
		"no commit":        {identityFile: identity, oldestCommitFile: canary},
		"no pinned commit": {identityFile: identity, pinnedCommitFile: canary},
		"too many signers": {identityFile: identity, allowedSignersFile: strings.Repeat("x", maxAllowedSigners+1)},
	} {
		dir := t.TempDir()
		for file, content := range files {
			ok(os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600))
		}
		_, err := LoadMembership(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
		mustHide(t, err)
		if strings.Contains(fmt.Sprint(err), identity[15:30]) {
			t.Errorf("%s: quotes the identity: %v", name, err)
		}
	}
	for name, m := range map[string]Membership{
		"no identity": {},
		"commit":      {Identity: someMembership().Identity, OldestCommit: canary},
		"signers":     {Identity: someMembership().Identity, AllowedSigners: make([]byte, maxAllowedSigners+1)},
	} {
		err := SaveMembership(t.TempDir(), m)
		if err == nil {
			t.Errorf("%s: saved", name)
		}
		mustHide(t, err)
	}
}

func TestJoinKeyStaysUntilTheMembershipIsSaved(t *testing.T) {
	dir := t.TempDir()
	first, second := must(joinKey(dir)), must(joinKey(dir))
	if first.String() != second.String() {
		t.Error("a second start has another join key")
	}
	ok(SaveMembership(dir, someMembership()))
	if third := must(joinKey(dir)); third.String() == first.String() {
		t.Error("the join key outlived the join")
	}
	if a, b := must(joinKey("")), must(joinKey("")); a.String() == b.String() {
		t.Error("keys in memory are all the same")
	}
}

func TestMembershipIsNotPrinted(t *testing.T) {
	m := someMembership()
	var out bytes.Buffer
	for _, v := range []any{m, &m, []Membership{m}, struct{ M Membership }{m}, map[string]any{"m": m}} {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %x %d", v, v, v, v, v, v, v)
		out.Write(must(json.Marshal(v)))
		out.Write(must(yaml.Marshal(v)))
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "m", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "m", v)
	}
	if text := strings.ToUpper(out.String()); strings.Contains(text, "AGE-SECRET-KEY") || strings.Contains(text, m.Identity.String()[20:40]) {
		t.Errorf("printed: %s", out.String())
	}
}
