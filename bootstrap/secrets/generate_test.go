package secrets

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/bcrypt"

	"understudy/bootstrap/command"
)

var generatedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// generated is made once, for RSA keys and bcrypt take their time.
var generated = sync.OnceValue(func() Bundle {
	b, _, err := Generate(Bundle{}, must(ParseTemplate("t", []byte(goodTemplate))), generatedAt)
	ok(err)
	return b
})

var allGenerated = []string{"cluster_key", "restic", "webhook", "mail/imap.key", "mail/imap.crt", "common/imap.crt", "mail/dkim.key", "mail/dkim.pub",
	"mail/alice", "mail/alice.hash", "repo/apt.asc", "common/apt.pub.asc", "common/salt", "common/plain"}

func TestGenerateFillsOnlyWhatIsMissing(t *testing.T) {
	tpl := must(ParseTemplate("t", []byte(goodTemplate)))
	full, made, err := Generate(Bundle{}, tpl, generatedAt)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(made, allGenerated) {
		t.Errorf("made %v, want %v", made, allGenerated)
	}
	if err := full.Validate(); err != nil {
		t.Errorf("a generated bundle is not valid: %v", err)
	}
	again, made, err := Generate(full, tpl, generatedAt.AddDate(20, 0, 0))
	if err != nil || len(made) != 0 || !reflect.DeepEqual(again, full) {
		t.Errorf("a second run made %v, %v; want nothing", made, err)
	}
	mustHide(t, tpl, full)

	for _, c := range []struct {
		remove, made []string
		secretKept   bool
	}{
		{[]string{"mail/imap.key"}, []string{"mail/imap.key", "mail/imap.crt", "common/imap.crt"}, false},
		{[]string{"mail/imap.crt"}, []string{"mail/imap.crt", "common/imap.crt"}, true},
		{[]string{"common/imap.crt"}, []string{"common/imap.crt"}, true},
		{[]string{"mail/dkim.pub", "mail/alice.hash", "common/apt.pub.asc"}, []string{"mail/dkim.pub", "mail/alice.hash", "common/apt.pub.asc"}, true},
		{[]string{"common/salt"}, []string{"common/salt"}, false},
		{[]string{"repo/apt.asc"}, []string{"repo/apt.asc", "common/apt.pub.asc"}, false},
	} {
		part := full
		part.Files = copyFiles(full.Files)
		for _, name := range c.remove {
			group, file, _ := strings.Cut(name, "/")
			delete(part.Files[group], file)
		}
		before := copyFiles(part.Files)
		got, made, err := Generate(part, tpl, generatedAt)
		if err != nil || !reflect.DeepEqual(made, c.made) {
			t.Errorf("without %v: made %v, %v; want %v", c.remove, made, err, c.made)
		}
		if !reflect.DeepEqual(part.Files, before) {
			t.Errorf("without %v: the given bundle was changed", c.remove)
		}
		for _, name := range allGenerated[3:] {
			group, file, _ := strings.Cut(name, "/")
			if same := got.Files[group][file].Equal(full.Files[group][file]); !same && !slices.Contains(c.made, name) {
				t.Errorf("without %v: %s changed", c.remove, name)
			}
		}
		if c.made[0] == "mail/imap.crt" && got.Files["mail"]["imap.crt"].Equal(full.Files["mail"]["imap.crt"]) {
			t.Error("a removed certificate was not renewed but copied back")
		}
	}
}

func TestGenerateDoesNotQuoteAFileItCannotRead(t *testing.T) {
	for file, asks := range map[string]string{
		"mail/imap.key": "mail: {imap: {kind: tls, names: [x]}}",
		"mail/dkim.key": "mail: {dkim: {kind: rsa}}",
		"repo/apt.asc":  "repo: {apt: {kind: openpgp, uid: a <b@c>}}",
		"mail/alice":    "mail: {alice: {kind: password, hash: blf-crypt}}",
	} {
		tpl := must(ParseTemplate("t", []byte(asks)))
		group, name, _ := strings.Cut(file, "/")
		for _, content := range []string{
			canary, "-----BEGIN PRIVATE KEY-----\n" + base64.StdEncoding.EncodeToString([]byte(canary)) + "\n-----END PRIVATE KEY-----\n",
			strings.Repeat(canary, 3),
		} {
			b := Bundle{Files: map[string]map[string]Secret{group: {name: NewSecret(content)}}}
			_, _, err := Generate(b, tpl, generatedAt)
			if fine := name == "alice" && len(content) <= maxHashed; (err == nil) != fine {
				t.Errorf("%s with %d bytes of rubbish: %v", file, len(content), err)
			}
			mustHide(t, err)
		}
	}
}

func TestGeneratedCertificateIsTrustedByClientsGivenIt(t *testing.T) {
	b := generated()
	pair := must(tls.X509KeyPair([]byte(b.Files["mail"]["imap.crt"].Reveal()), []byte(b.Files["mail"]["imap.key"].Reveal())))
	if !b.Files["common"]["imap.crt"].Equal(b.Files["mail"]["imap.crt"]) {
		t.Error("the published certificate is another")
	}
	if pair.Leaf.IsCA {
		t.Error("the certificate could sign others")
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(b.Files["common"]["imap.crt"].Reveal()))
	verify := func(name string, when time.Time) error {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: when})
		return err
	}
	for _, name := range []string{"mail.blog.example", "other.blog.example", "10.0.0.1", "2001:db8::1"} {
		for _, when := range []time.Time{generatedAt.Add(-time.Hour), generatedAt.AddDate(9, 11, 0)} {
			if err := verify(name, when); err != nil {
				t.Errorf("%s at %v: %v", name, when, err)
			}
		}
	}
	if err := verify("evil.example", generatedAt); err == nil {
		t.Error("accepted for a name that is not in it")
	}
}

func TestGeneratedKeysAreWhatTheirReadersExpect(t *testing.T) {
	b := generated()
	block, _ := pem.Decode([]byte(b.Files["mail"]["dkim.key"].Reveal()))
	key := must(x509.ParsePKCS8PrivateKey(block.Bytes)).(*rsa.PrivateKey)
	spki := must(base64.StdEncoding.DecodeString(b.Files["mail"]["dkim.pub"].Reveal()))
	if pub := must(x509.ParsePKIXPublicKey(spki)); key.N.BitLen() != 2048 || !key.PublicKey.Equal(pub) {
		t.Error("dkim.pub is not the public key of a 2048-bit dkim.key")
	}
	password, hash := b.Files["mail"]["alice"].Reveal(), b.Files["mail"]["alice.hash"].Reveal()
	crypt, isBcrypt := strings.CutPrefix(hash, "{BLF-CRYPT}")
	if len(password) != 24 || !isBcrypt || !strings.HasPrefix(crypt, "$2y$10$") || bcrypt.CompareHashAndPassword([]byte(crypt), []byte(password)) != nil {
		t.Error("alice.hash is not a bcrypt hash of alice")
	}
	if got := b.Files["common"]["salt"].Reveal(); !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(got) {
		t.Errorf("salt has %d characters, want 32 of hex", len(got))
	}
	if got := b.Files["common"]["plain"].Reveal(); !regexp.MustCompile(`^[A-Za-z0-9]{32}$`).MatchString(got) {
		t.Errorf("plain has %d characters, want 32 letters and digits", len(got))
	}
}

func TestRandomTextUsesEveryLetterFairly(t *testing.T) {
	count := map[rune]int{}
	for _, c := range randomText(62_000) {
		count[c]++
	}
	for _, c := range passwordLetters {
		if count[c] < 800 || count[c] > 1200 { // 1000 ± 6 standard deviations
			t.Errorf("%c was drawn %d times of 62000, want about 1000", c, count[c])
		}
	}
}

func TestOpenPGPKeyMeetsSequoiasPolicy(t *testing.T) {
	b := generated()
	public := must(openpgp.ReadArmoredKeyRing(strings.NewReader(b.Files["common"]["apt.pub.asc"].Reveal())))[0]
	if public.PrivateKey != nil {
		t.Fatal("the published key holds the private one")
	}
	id := public.Identities["Blog packages <apt@blog.example>"]
	if id == nil {
		t.Fatal("the user ID is not the one asked for")
	}
	if got := public.PrimaryKey.PubKeyAlgo; got != packet.PubKeyAlgoEdDSA {
		t.Errorf("algorithm %v, want Ed25519", got)
	}
	if got := id.SelfSignature.Hash.String(); got != "SHA-512" {
		t.Errorf("self-signature with %s, want SHA-512", got)
	}
	if len(public.Subkeys) != 0 || id.SelfSignature.KeyLifetimeSecs != nil && *id.SelfSignature.KeyLifetimeSecs != 0 {
		t.Error("the key has subkeys or expires")
	}
}

// TestGPGSignsWithTheGeneratedKey is the round trip of a repository: reprepro signs through gpg, nodes verify with the
// published key only.
func TestGPGSignsWithTheGeneratedKey(t *testing.T) {
	b := generated()
	dir := must(os.MkdirTemp("/tmp", "gpg")) // short: gpg-agent's socket path has a limit of 107 bytes
	t.Cleanup(func() { ok(os.RemoveAll(dir)) })
	signer, verifier := filepath.Join(dir, "s"), filepath.Join(dir, "v")
	run := func(home, program string, args ...string) string {
		t.Helper()
		result, err := command.Exec{}.Run(t.Context(), command.Cmd{
			Path: "/usr/bin/" + program, Args: args, Dir: dir, Timeout: time.Minute,
			Env: []string{"GNUPGHOME=" + home, "PATH=/usr/bin:/bin", "LC_ALL=C"},
		})
		if err != nil || result.ExitCode != 0 {
			t.Fatalf("%s %v: exit %d, %v\n%s", program, args, result.ExitCode, err, result.Stderr)
		}
		return string(result.Stdout) + string(result.Stderr)
	}
	for _, home := range []string{signer, verifier} {
		ok(os.Mkdir(home, 0o700))
		defer run(home, "gpgconf", "--kill", "all")
	}
	ok(b.WriteFiles(filepath.Join(dir, "files"), "common", "repo"))
	ok(os.WriteFile(filepath.Join(dir, "Release"), []byte("Origin: blog\n"), 0o600))

	run(signer, "gpg", "--batch", "--import", "files/repo/apt.asc")
	run(signer, "gpg", "--batch", "--digest-algo", "SHA256", "--armor", "--detach-sign", "--output", "Release.gpg", "Release")
	run(signer, "gpg", "--batch", "--clearsign", "--output", "InRelease", "Release")

	run(verifier, "gpg", "--batch", "--import", "files/common/apt.pub.asc")
	for _, args := range [][]string{{"--verify", "Release.gpg", "Release"}, {"--verify", "InRelease"}} {
		if got := run(verifier, "gpg", append([]string{"--batch"}, args...)...); !strings.Contains(got, `Good signature from "Blog packages <apt@blog.example>"`) {
			t.Errorf("gpg %v says %s", args, got)
		}
	}
	if got := run(verifier, "gpg", "--batch", "--with-colons", "--list-secret-keys"); strings.Contains(got, "sec:") {
		t.Error("the published key brought a private one along")
	}
}
