package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"
)

const (
	edKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINNwMHM8lLcve+HMdKmjaanRnkdOE0Sm3ZUxkjv5LTgg"
	// rsaKey has 1024 bits.
	rsaKey = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC2oRH9ISFaddVieKOprPN/wuQDhuNKsI1RRKDyefQf1H9/uNvRq7vptr9qnhGabPErPOmQjV5SsRw8br+Dw39VgURTqmzMc/aWGMVxsXdjbM0Wb3KBppO3HrURjtG2vtb1KSq0TjJ6jRaeeVzWxX0lVwpOd0hFK5CiAwrJd4X20Q=="
)

func TestProblemsOfAnAllowedSignersFile(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{"plain", "ada@x " + edKey, ""},
		{"comment after the key", "ada@x " + edKey + " Ada's laptop", ""},
		{"tabs, spaces, CRLF", "  ada@x\t \t" + edKey + "\r", ""},
		{"options", `ada@x NameSpaces="git",valid-after="20240101",valid-before="202501010101" ` + edKey, ""},
		{"space in a quoted value", `ada@x namespaces="git,a b" ` + edKey, ""},
		{"escaped quote", `ada@x namespaces="git,a\"b" ` + edKey, ""},
		{"only principals", "ada@x", "want principals"},
		{"no key", "ada@x ssh-ed25519", "want principals"},
		{"no principals", edKey, "unknown"},
		{"certificate authority", "*@x cert-authority " + edKey, "certificate authority"},
		{"certificate", "ada@x ssh-ed25519-cert-v01@openssh.com AAAA", "certificate"},
		{"unknown option", `ada@x no-touch-required ` + edKey, "unknown"},
		{"option twice", `ada@x namespaces="git",namespaces="git" ` + edKey, "twice"},
		{"value without quotes", `ada@x namespaces=git ` + edKey, "double quotes"},
		{"quote not closed", `ada@x namespaces="git ` + edKey, "closing quote"},
		{"empty pattern", `ada@x namespaces="git," ` + edKey, "empty pattern"},
		{"words after a value", `ada@x namespaces="git"x ` + edKey, "want a comma"},
		{"comma at the end", `ada@x namespaces="git", ` + edKey, "want a comma"},
		{"empty option", `ada@x ,namespaces="git" ` + edKey, "unknown"},
		{"bad time", `ada@x valid-after="2024" ` + edKey, "not a time"},
		{"impossible time", `ada@x valid-after="20241301" ` + edKey, "not a time"},
		{"time zero", `ada@x valid-after="19700101Z" ` + edKey, "not a time"},
		{"never valid", `ada@x valid-after="20250101",valid-before="20240101" ` + edKey, "never valid"},
		{"bad base64", "ada@x ssh-ed25519 !!!!", "base64"},
		{"not a key", "ada@x ssh-ed25519 AAAA", "key of type"},
		{"key of another type", "ada@x ssh-rsa " + strings.Fields(edKey)[1], "the key says"},
		{"short RSA key", "ada@x " + rsaKey, "1024 bits"},
		{"quoted principals", `"ada@x" ` + edKey, "quotes"},
		{"empty principal", "ada@x,,eve@x " + edKey, "empty principal"},
		{"negated principals only", "!ada@x " + edKey, "nobody"},
		{"NUL", "ada@x " + edKey + "\x00", "control character"},
		{"empty file", "", "nobody is allowed"},
		{"OpenPGP block not closed", pgpBegin + "\n\nxx", "no END line"},
		{"OpenPGP block broken", pgpBegin + "\n\nxx\n" + pgpEnd, "OpenPGP block"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := ParseSigners("f", []byte("# first line\n"+tt.line+"\n"))
			if tt.want == "" {
				if err != nil || s.Empty() {
					t.Fatalf("got %v, %v; want accepted", s, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want something with %q", err, tt.want)
			}
			if !s.Empty() {
				t.Error("a file with a problem allows somebody")
			}
			if !strings.HasPrefix(err.Error(), "f:2: ") {
				t.Errorf("got %q, want line 2", err)
			}
		})
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	_, err := ParseSigners("f", []byte("a\n\nb\n# c\nd x y\n"))
	for _, line := range []string{"f:1:", "f:3:", "f:5:"} {
		if err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("got %v, want a problem at %s", err, line)
		}
	}
	if p, ok := errors.AsType[*Problem](err); !ok || p.Line != 1 {
		t.Errorf("got %+v, want a *Problem", p)
	}
}

func TestTimesOfSigners(t *testing.T) {
	tests := map[string]time.Time{
		"20240229Z":       time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC),
		"202402291213Z":   time.Date(2024, 2, 29, 12, 13, 0, 0, time.UTC),
		"20240229121314Z": time.Date(2024, 2, 29, 12, 13, 14, 0, time.UTC),
		"20240229":        time.Date(2024, 2, 29, 0, 0, 0, 0, time.Local),
	}
	for text, want := range tests {
		if got, err := parseTime(text); err != nil || !got.Equal(want) {
			t.Errorf("%s: got %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestSignersFileWithCertificatesBeside(t *testing.T) {
	o := newOrigin(t)
	g := newGPG(t, o)
	_, armored := g.key("Ada <ada@blog.example>", "ed25519", "never")
	path := filepath.Join(t.TempDir(), "allowed_signers")
	if _, err := LoadSigners(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
	files := map[string]string{path: "", path + ".d/ada.asc": armored, path + ".d/README": "not a key"}
	if err := os.Mkdir(path+".d", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := LoadSigners(path)
	if err != nil || len(s.pgp) != 1 || len(s.ssh) != 0 {
		t.Fatalf("got %+v, %v; want one certificate", s, err)
	}
	if err := os.WriteFile(path, []byte("ada@x "+edKey+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err = LoadSigners(path); err != nil || len(s.pgp) != 1 || len(s.ssh) != 1 {
		t.Fatalf("got %+v, %v; want a key and a certificate", s, err)
	}
	secret := g.gpg("--armor", "--export-secret-keys")
	if _, err := ParseSigners("f", []byte(strings.ReplaceAll(secret, "PRIVATE", "PUBLIC")+"\n")); err == nil {
		t.Error("a private key was accepted")
	}
}

// The law of patterns: what * and ? stand for can be read off the expanded text.
func TestPatternsMatchAsAReferenceDoes(t *testing.T) {
	var reference func(p, s string) bool
	reference = func(p, s string) bool {
		switch {
		case p == "":
			return s == ""
		case p[0] == '*':
			return reference(p[1:], s) || s != "" && reference(p, s[1:])
		default:
			return s != "" && (p[0] == '?' || p[0] == s[0]) && reference(p[1:], s[1:])
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringMatching(`[ab*?]{0,6}`).Draw(t, "pattern")
		s := rapid.StringMatching(`[ab]{0,6}`).Draw(t, "text")
		if got, want := matchPattern(p, s), reference(p, s); got != want {
			t.Fatalf("%q matches %q: got %v, want %v", p, s, got, want)
		}
	})
}

func FuzzParseSigners(f *testing.F) {
	f.Add("ada@x " + edKey)
	f.Add(`ada@x,!b@* namespaces="git,\"",valid-after="20240101Z" ` + edKey + " comment")
	f.Add(pgpBegin + "\n\nmDMEZ\n" + pgpEnd)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSigners("f", []byte(text))
		if err != nil && !s.Empty() {
			t.Errorf("allowed %+v in spite of %v", s, err)
		}
		for _, line := range s.ssh {
			key, err := ssh.ParsePublicKey(line.key)
			if err != nil || strong(key) != nil {
				t.Errorf("accepted the key %x: %v", line.key, err)
			}
			if line.principals == "" || !strings.Contains(text, line.principals) {
				t.Errorf("made up the principals %q", line.principals)
			}
		}
		if err != nil && fmt.Sprint(err) == "" {
			t.Error("empty error")
		}
	})
}
