package control

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"understudy/bootstrap/command"
)

// gpgHome is a keyring of a user who signs, made by the real gpg.
type gpgHome struct {
	*origin
	dir string
}

func newGPG(t *testing.T, o *origin) gpgHome {
	t.Helper()
	dir, err := os.MkdirTemp("", "gpg-test-") // short: the agent's socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	g := gpgHome{o, dir}
	o.env = append(o.env, "GNUPGHOME="+dir)
	t.Cleanup(func() {
		o.run(nil, "gpgconf", "--kill", "all") // the agent that gpg started to sign
		os.RemoveAll(dir)
	})
	return g
}

func (g gpgHome) gpg(args ...string) string {
	g.t.Helper()
	out, err := g.run(nil, "gpg", append([]string{"--batch", "--yes", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"}, args...)...)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// key makes a key and returns its fingerprint and armored certificate.
func (g gpgHome) key(user, kind, expires string) (fingerprint, armored string) {
	g.t.Helper()
	g.gpg("--quick-generate-key", user, kind, "sign", expires)
	for line := range strings.Lines(g.gpg("--with-colons", "--list-keys", user)) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			fingerprint = f[9]
		}
	}
	return fingerprint, g.export(user)
}

func (g gpgHome) export(user string) string { return g.gpg("--armor", "--export", user) + "\n" }

func TestOpenPGPCommitsAreJudgedByGitAndGPG(t *testing.T) {
	o := newOrigin(t)
	g := newGPG(t, o)
	ada, adasKey := g.key("Ada <ada@blog.example>", "ed25519", "never")
	eve, evesKey := g.key("Eve <eve@blog.example>", "rsa2048", "never")
	good := o.commit("a", "1\n", "-S"+ada)
	raw := o.git("cat-file", "commit", good) + "\n"
	tampered := o.object("commit", []byte(strings.Replace(raw, "change a", "change b", 1)))
	weak := g.resign(good, ada, "--digest-algo", "SHA1")
	ssh, _ := newKey(t)
	sshLine := allow("ops@blog.example", "", ssh.PublicKey())
	tests := []struct {
		name, signers, commit string
		want                  error
		unknown               bool
	}{
		{"good", adasKey, good, nil, false},
		{"good, among others", sshLine + evesKey + "# and\n" + adasKey, good, nil, false},
		{"tampered", adasKey, tampered, ErrBadSignature, false},
		{"another's key only", evesKey, good, nil, true},
		{"ssh keys only", sshLine, good, nil, true},
		{"SHA-1", adasKey, weak, ErrBadSignature, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			who, err := verdictOfOurs(t, o, tt.signers, tt.commit)
			_, unknown := errors.AsType[*UnknownSignerError](err)
			if unknown != tt.unknown || !unknown && !errors.Is(err, tt.want) {
				t.Errorf("got %+v, %v; want %v, unknown %v", who, err, tt.want, tt.unknown)
			}
			if err == nil && (who.Kind != "openpgp" || who.Fingerprint != ada || !strings.Contains(who.Name, "ada@")) {
				t.Errorf("got %+v, want Ada, %s", who, ada)
			}
		})
	}
	if eve == ada {
		t.Error("two keys, one fingerprint")
	}
}

// resign replaces a commit's signature by one that gpg makes with further options.
func (g gpgHome) resign(commit, key string, options ...string) string {
	g.t.Helper()
	c, err := parseCommit([]byte(g.git("cat-file", "commit", commit) + "\n"))
	if err != nil {
		g.t.Fatal(err)
	}
	armored, err := g.run(c.payload, "gpg", append([]string{"--batch", "--passphrase", "", "--pinentry-mode", "loopback",
		"--local-user", key, "--armor", "--detach-sign"}, options...)...)
	if err != nil {
		g.t.Fatal(err)
	}
	return g.object("commit", []byte(insert(string(c.payload), gpgsig(armored))))
}

func TestExpiredAndRevokedOpenPGPKeysAreRefused(t *testing.T) {
	o := newOrigin(t)
	g := newGPG(t, o)
	ada, adasKey := g.key("Ada <ada@blog.example>", "ed25519", "never")
	commit := o.commit("a", "1\n", "-S"+ada)
	if _, err := verdictOfOurs(t, o, adasKey, commit); err != nil {
		t.Fatal(err)
	}
	// Two years ago, a key was valid for a day and signed on it.
	then := []string{"--faked-system-time", "20240101T000000!"}
	g.gpg(append(then, "--quick-generate-key", "Old <old@blog.example>", "ed25519", "sign", "1d")...)
	_, err := verdictOfOurs(t, o, g.export("old@blog.example"), g.resign(commit, "old@blog.example", then...))
	if !errors.Is(err, ErrBadSignature) {
		t.Errorf("expired: got %v, want ErrBadSignature", err)
	}
	certificate := filepath.Join(g.dir, "openpgp-revocs.d", ada+".rev")
	text, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	// gpg puts a colon before the block, against accidents.
	if err := os.WriteFile(certificate, []byte(strings.Replace(string(text), ":-----BEGIN", "-----BEGIN", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	g.gpg("--import", certificate)
	_, err = verdictOfOurs(t, o, g.export(ada), commit)
	if !errors.Is(err, ErrBadSignature) {
		t.Errorf("revoked: got %v, want ErrBadSignature", err)
	}
}

func TestOpenPGPRunsSeeNoConfigurationButOurs(t *testing.T) {
	o := newOrigin(t)
	g := newGPG(t, o)
	ada, adasKey := g.key("Ada <ada@blog.example>", "ed25519", "never")
	commit := o.commit("a", "1\n", "-S"+ada)
	allowed, err := ParseSigners("s", []byte(adasKey))
	if err != nil {
		t.Fatal(err)
	}
	fake := &command.Fake{}
	r := newRepo(t, Options{Runner: fake, Git: "/opt/bin/git", GPG: "/opt/bin/gpg"})
	c := fetch(t, r, o.dir)
	if _, err := r.Verify(t.Context(), c, allowed); !errors.Is(err, ErrBadSignature) {
		t.Errorf("silent programs: got %v, want ErrBadSignature", err)
	}
	calls := fake.Calls()
	if len(calls) != 2 || calls[0].Path != "/opt/bin/gpg" || calls[1].Path != "/opt/bin/git" || calls[1].Args[2] != commit {
		t.Fatalf("got %+v", calls)
	}
	for _, call := range calls {
		env := strings.Join(call.Env, "\n")
		for _, want := range []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/", "HOME=/", "GNUPGHOME=/", "GIT_DIR=/"} {
			if !strings.Contains(env, want) {
				t.Errorf("%s: environment %q lacks %s", call.Path, env, want)
			}
		}
		if strings.Contains(env, r.Dir) {
			t.Errorf("%s sees the repository itself", call.Path)
		}
	}
}

func TestJudgeWantsOneGoodSignatureAndNoDoubt(t *testing.T) {
	const fpr = "0123456789ABCDEF0123456789ABCDEF01234567"
	const good = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 89ABCDEF01234567 Ada\n" +
		"[GNUPG:] VALIDSIG " + fpr + " 2023-11-14 1700000000 0 4 0 22 10 00 " + fpr + "\n"
	allowed := Signers{pgp: []pgpSigner{{fingerprint: fpr}}}
	tests := []struct {
		name   string
		result command.Result
		ok     bool
	}{
		{"good", command.Result{Stderr: []byte(good)}, true},
		{"exit code", command.Result{Stderr: []byte(good), ExitCode: 1}, false},
		{"nothing", command.Result{}, false},
		{"expired key", command.Result{Stderr: []byte(good + "[GNUPG:] EXPKEYSIG 1 Ada\n")}, false},
		{"two signatures", command.Result{Stderr: []byte(good + good)}, false},
		{"no VALIDSIG", command.Result{Stderr: []byte("[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 1 Ada\n")}, false},
		{"another primary key", command.Result{Stderr: []byte(strings.Replace(good, "00 0123", "00 9123", 1))}, false},
		{"SHA-1", command.Result{Stderr: []byte(strings.Replace(good, " 22 10 00", " 22 2 00", 1))}, false},
		{"text signature", command.Result{Stderr: []byte(strings.Replace(good, " 10 00", " 10 01", 1))}, false},
		{"output cut", command.Result{Stderr: []byte(good), Omitted: 1}, false},
		{"status in a user name", command.Result{Stderr: []byte("gpg: [GNUPG:] GOODSIG\n" + good)}, true},
	}
	for _, tt := range tests {
		if _, err := judge("0000000000000", tt.result, allowed); (err == nil) != tt.ok {
			t.Errorf("%s: got %v, want accepted %v", tt.name, err, tt.ok)
		}
	}
}
