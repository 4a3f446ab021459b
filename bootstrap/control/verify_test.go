package control

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// signSSH returns an armored signature, as gpg.format=ssh has ssh-keygen make it.
func signSSH(t testing.TB, key ssh.Signer, h sshsig.HashAlgorithm, namespace string, payload []byte) string {
	t.Helper()
	sig, err := sshsig.Sign(bytes.NewReader(payload), key, h, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return string(sshsig.Armor(sig))
}

// gpgsig is a signature as a commit header.
func gpgsig(armored string) string {
	return "gpgsig " + strings.ReplaceAll(strings.TrimSuffix(armored, "\n"), "\n", "\n ") + "\n"
}

// insert puts headers before the empty line that ends a payload's headers.
func insert(payload, headers string) string {
	return strings.Replace(payload, "\n\n", "\n"+headers+"\n", 1)
}

// verdictOfGit asks the real git, with the same allowed signers.
func verdictOfGit(t testing.TB, o *origin, signers, commit string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "allowed_signers")
	if err := os.WriteFile(file, []byte(signers), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := o.run(nil, "git", "-c", "gpg.ssh.allowedSignersFile="+file, "verify-commit", commit)
	return err
}

// verdictOfOurs fetches the commit and verifies it.
func verdictOfOurs(t testing.TB, o *origin, signers, commit string) (Signer, error) {
	t.Helper()
	allowed, err := ParseSigners("allowed_signers", []byte(signers))
	if err != nil {
		t.Fatal(err)
	}
	o.point("main", commit)
	r := newRepo(t, Options{})
	c, err := r.Fetch(t.Context(), []Source{{URL: o.dir}}, "main")
	if failed, ok := errors.AsType[*FetchError](err); ok {
		return Signer{}, failed.Attempts[0].Err
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.Verify(t.Context(), c, allowed)
}

func allow(principals, options string, key ssh.PublicKey) string {
	return strings.TrimSpace(principals+" "+options) + " " + string(ssh.MarshalAuthorizedKey(key))
}

// forgery is a commit, and what must be thought of it.
type forgery struct {
	name     string
	raw      string
	signers  string // empty: Ada's key
	want     error  // nil: accepted
	unknown  bool   // want a *UnknownSignerError
	stricter bool   // git accepts it, for a reason said where it is made
}

func (f forgery) check(t *testing.T, o *origin, adasLine string) {
	t.Helper()
	hash := o.object("commit", []byte(f.raw))
	signers := or(f.signers, adasLine)
	_, err := verdictOfOurs(t, o, signers, hash)
	_, unknown := errors.AsType[*UnknownSignerError](err)
	switch {
	case unknown != f.unknown:
		t.Errorf("got %v; want an unknown signer: %v", err, f.unknown)
	case !unknown && (err == nil) != (f.want == nil), f.want != nil && !errors.Is(err, f.want):
		t.Errorf("got %v, want %v", err, f.want)
	}
	gits := verdictOfGit(t, o, signers, hash)
	if err == nil && gits != nil {
		t.Errorf("we accept what git refuses: %v", gits)
	}
	if err != nil && (gits == nil) != f.stricter {
		t.Errorf("we refuse it (%v), git says %v; is that known? %v", err, gits, f.stricter)
	}
}

func TestVerdictsAgreeWithGit(t *testing.T) {
	o := newOrigin(t)
	first := o.commit("a", "1\n")
	tree, otherTree := o.git("rev-parse", "HEAD^{tree}"), ""
	second := o.commit("a", "2\n")
	otherTree = o.git("rev-parse", "HEAD^{tree}")
	const who = "Ada <ada@blog.example> 1700000000 +0100"
	payload := fmt.Sprintf("tree %s\nparent %s\nauthor %s\ncommitter %s\n\nsubject\n\nbody\n", tree, first, who, who)
	other := strings.Replace(payload, "subject", "another subject", 1)
	ada, _ := newKey(t)
	eve, _ := newKey(t)
	line := allow("ada@blog.example", "", ada.PublicKey())
	sign := func(p string) string { return gpgsig(signSSH(t, ada, sshsig.HashSHA512, "git", []byte(p))) }
	signed := insert(payload, sign(payload))
	with := func(headers string) string { // signed over further headers, the signature last
		p := insert(payload, headers)
		return insert(p, sign(p))
	}
	extra := insert(payload, "x-extra value\n")
	crlf := strings.ReplaceAll(payload, "\nbody\n", "\r\nbody\r\n")
	mergetag := "mergetag object " + second + "\n type commit\n tag v1\n tagger " + who + "\n \n v1\n -----BEGIN SSH SIGNATURE-----\n x\n -----END SSH SIGNATURE-----\n"
	wrongSig := func(namespace string) string {
		return insert(payload, gpgsig(signSSH(t, ada, sshsig.HashSHA512, namespace, []byte(payload))))
	}
	for _, f := range []forgery{
		{name: "signed", raw: signed},
		{name: "SHA-256", raw: insert(payload, gpgsig(signSSH(t, ada, sshsig.HashSHA256, "git", []byte(payload))))},
		{name: "signature not the last header", raw: strings.Replace(extra, "x-extra", sign(extra)+"x-extra", 1)},
		{name: "encoding", raw: with("encoding ISO-8859-1\n")},
		{name: "mergetag", raw: with(mergetag)},
		{name: "mercurial's extra", raw: with("HG:rename-source hg\n")},
		{name: "message with CRLF", raw: insert(crlf, sign(crlf))},
		{name: "message that looks like headers", raw: func() string {
			p := payload + "\ngpgsig -----BEGIN SSH SIGNATURE-----\n x\n\ntree " + otherTree + "\n"
			return insert(p, sign(p))
		}()},

		{name: "unsigned", raw: payload, want: ErrUnsigned},
		{name: "unsigned, a signature in the message", raw: payload + "\n" + sign(payload), want: ErrUnsigned},
		{name: "unknown key", raw: insert(payload, gpgsig(signSSH(t, eve, sshsig.HashSHA512, "git", []byte(payload)))), unknown: true},
		{name: "signature of another commit", raw: insert(payload, sign(other)), want: ErrBadSignature},
		{name: "message changed", raw: strings.Replace(signed, "body", "bodY", 1), want: ErrBadSignature},
		{name: "message grown", raw: signed + "more\n", want: ErrBadSignature},
		{name: "tree swapped", raw: strings.Replace(signed, tree, otherTree, 1), want: ErrBadSignature},
		{name: "parent swapped", raw: strings.Replace(signed, first, second, 1), want: ErrBadSignature},
		{name: "parent added", raw: strings.Replace(signed, "author", "parent "+second+"\nauthor", 1), want: ErrBadSignature},
		{name: "header injected before", raw: strings.Replace(signed, "gpgsig", "x-extra value\ngpgsig", 1), want: ErrBadSignature},
		{name: "header injected after", raw: insert(signed, "x-extra value\n"), want: ErrBadSignature},
		{name: "mergetag injected", raw: insert(signed, mergetag), want: ErrBadSignature},
		{name: "encoding injected", raw: insert(signed, "encoding UTF-8\n"), want: ErrBadSignature},
		{name: "second tree", raw: strings.Replace(signed, "parent", "tree "+otherTree+"\nparent", 1), want: ErrMalformed},
		{name: "tree after the signature", raw: insert(signed, "tree "+otherTree+"\n"), want: ErrMalformed},
		{name: "CRLF in headers", raw: strings.Replace(signed, "+0100\n", "+0100\r\n", 1), want: ErrMalformed},
		{name: "NUL in the message", raw: strings.Replace(signed, "body", "bo\x00dy", 1), want: ErrMalformed},
		{name: "wrong namespace", raw: wrongSig("file"), want: ErrBadSignature},
		// git joins both values, and ssh-keygen stops reading after the first.
		{name: "two signatures, the good first", raw: insert(signed, sign(other)), want: ErrMalformed, stricter: true},
		{name: "two signatures, the good last", raw: insert(insert(payload, sign(other)), sign(payload)), want: ErrMalformed},
		// git strips gpgsig-sha256 from what was signed: whatever stands there, nobody vouches for it.
		{name: "gpgsig-sha256 besides", raw: insert(signed, strings.Replace(sign(other), "gpgsig", "gpgsig-sha256", 1)), want: ErrMalformed, stricter: true},
		{name: "garbage for a signature", raw: insert(payload, "gpgsig hello\n"), want: ErrBadSignature},
		{name: "empty signature", raw: insert(payload, "gpgsig \n"), want: ErrBadSignature},
		// ssh-keygen stops reading at END; what follows is not signed.
		{name: "bytes after the signature", raw: insert(payload, strings.TrimSuffix(sign(payload), "\n")+"\n trailing words\n"), want: ErrBadSignature, stricter: true},
		{name: "signature cut short", raw: strings.Replace(signed, " -----END SSH SIGNATURE-----\n", "", 1), want: ErrBadSignature},

		{name: "valid in time", raw: signed, signers: allow("ada@x", `valid-after="20231101Z",valid-before="20231201Z"`, ada.PublicKey())},
		{name: "not yet valid", raw: signed, signers: allow("ada@x", `valid-after="20231201Z"`, ada.PublicKey()), want: ErrBadSignature},
		{name: "no longer valid", raw: signed, signers: allow("ada@x", `valid-before="20231101Z"`, ada.PublicKey()), want: ErrBadSignature},
		{name: "the very second", raw: signed, signers: allow("ada@x", `valid-after="20231114221320Z",valid-before="20231114221321Z"`, ada.PublicKey())},
		{name: "a second late", raw: signed, signers: allow("ada@x", `valid-before="20231114221319Z"`, ada.PublicKey()), want: ErrBadSignature},
		{name: "retired once, allowed again", raw: signed, signers: allow("ada@x", `valid-before="20231101Z"`, ada.PublicKey()) +
			allow("ada@y", "", ada.PublicKey())},
		{name: "namespace git allowed", raw: signed, signers: allow("ada@x", `namespaces="file,git"`, ada.PublicKey())},
		{name: "namespace by pattern", raw: signed, signers: allow("ada@x", `namespaces="g?t"`, ada.PublicKey())},
		{name: "only for files", raw: signed, signers: allow("ada@x", `namespaces="file"`, ada.PublicKey()), unknown: true},
		{name: "not for git", raw: signed, signers: allow("ada@x", `namespaces="*,!git"`, ada.PublicKey()), unknown: true},
		{name: "another signer", raw: signed, signers: allow("eve@x", "", eve.PublicKey()), unknown: true},
		{name: "one of many", raw: signed, signers: "# comment\n\n" + allow("eve@x", "", eve.PublicKey()) + line},
		{name: "principals by pattern", raw: signed, signers: allow("!eve@x,*@blog.example", "", ada.PublicKey())},
	} {
		t.Run(f.name, func(t *testing.T) { f.check(t, o, line) })
	}
}

// Keys and signatures made by ssh-keygen and git themselves.
func TestCommitsSignedByGitAreAccepted(t *testing.T) {
	for _, kind := range [][]string{{"ed25519"}, {"ecdsa", "-b", "256"}, {"ecdsa", "-b", "521"}, {"rsa", "-b", "2048"}} {
		t.Run(strings.Join(kind, " "), func(t *testing.T) {
			o := newOrigin(t)
			key := filepath.Join(t.TempDir(), "key")
			if _, err := o.run(nil, "ssh-keygen", append([]string{"-q", "-N", "", "-f", key, "-t"}, kind...)...); err != nil {
				t.Fatal(err)
			}
			o.git("config", "gpg.format", "ssh")
			o.git("config", "user.signingKey", key)
			commit := o.commit("a", "1\n", "-S")
			public, err := os.ReadFile(key + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			signers := "ada@blog.example,ops@blog.example " + string(public)
			who, err := verdictOfOurs(t, o, signers, commit)
			if err != nil || who.Kind != "ssh" || who.Name != "ada@blog.example,ops@blog.example" || !strings.HasPrefix(who.Fingerprint, "SHA256:") {
				t.Errorf("got %+v, %v; want accepted", who, err)
			}
			if err := verdictOfGit(t, o, signers, commit); err != nil {
				t.Errorf("git: %v", err)
			}
		})
	}
}

func TestMergeOfASignedTagIsAccepted(t *testing.T) {
	o := newOrigin(t)
	key := filepath.Join(t.TempDir(), "key")
	if _, err := o.run(nil, "ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", key); err != nil {
		t.Fatal(err)
	}
	o.git("config", "gpg.format", "ssh")
	o.git("config", "user.signingKey", key)
	o.commit("a", "1\n", "-S")
	o.git("checkout", "--quiet", "-b", "side")
	o.commit("b", "2\n", "-S")
	o.git("tag", "-s", "-m", "v1", "v1")
	o.git("checkout", "--quiet", "main")
	o.git("-c", "i18n.commitEncoding=ISO-8859-1", "merge", "--quiet", "--no-ff", "-S", "-m", "merge", "v1")
	commit := o.git("rev-parse", "HEAD")
	if raw := o.git("cat-file", "commit", commit); !strings.Contains(raw, "\nmergetag ") || !strings.Contains(raw, "\nencoding ") {
		t.Fatalf("the commit is not what this test needs:\n%s", raw)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verdictOfOurs(t, o, "ada@x "+string(public), commit); err != nil {
		t.Error(err)
	}
}

// skKey signs as a FIDO token does (PROTOCOL.u2f of OpenSSH).
type skKey struct {
	private ed25519.PrivateKey
	flags   byte
}

func (k skKey) PublicKey() ssh.PublicKey {
	wire := ssh.Marshal(struct {
		Type string
		Key  []byte
		App  string
	}{ssh.KeyAlgoSKED25519, k.private.Public().(ed25519.PublicKey), "ssh:"})
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		panic(err)
	}
	return key
}

func (k skKey) Sign(_ any, data []byte) *ssh.Signature {
	app, message := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	tail := append([]byte{k.flags}, binary.BigEndian.AppendUint32(nil, 7)...)
	blob := append(append(app[:], tail...), message[:]...)
	return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(k.private, blob), Rest: tail}
}

func TestSecurityKeysCountOnlyWhenTouched(t *testing.T) {
	o := newOrigin(t)
	o.commit("a", "1\n")
	payload := fmt.Sprintf("tree %s\nauthor A <a@b> 1700000000 +0000\ncommitter A <a@b> 1700000000 +0000\n\nx\n", o.git("rev-parse", "HEAD^{tree}"))
	_, private := newKey(t)
	for flags, want := range map[byte]error{0x01: nil, 0x05: nil, 0x00: ErrBadSignature, 0x04: ErrBadSignature} {
		key := skKey{private, flags}
		sum := sha256.Sum256([]byte(payload))
		signed := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Hash, Sum string }{"git", "", "sha256", string(sum[:])})...)
		blob := append([]byte("SSHSIG"), ssh.Marshal(struct {
			Version                   uint32
			Key                       []byte
			Namespace, Reserved, Hash string
			Signature                 []byte
		}{1, key.PublicKey().Marshal(), "git", "", "sha256", ssh.Marshal(key.Sign(nil, signed))})...)
		armored := "-----BEGIN SSH SIGNATURE-----\n" + wrap(base64.StdEncoding.EncodeToString(blob)) + "-----END SSH SIGNATURE-----\n"
		// ssh-keygen verifies without asking for a touch; x/crypto/ssh asks as sshd does.
		f := forgery{raw: insert(payload, gpgsig(armored)), want: want, stricter: true}
		t.Run(fmt.Sprintf("flags %#x", flags), func(t *testing.T) { f.check(t, o, allow("ada@x", "", key.PublicKey())) })
	}
}

func wrap(text string) string {
	var b strings.Builder
	for len(text) > 70 {
		b.WriteString(text[:70] + "\n")
		text = text[70:]
	}
	return b.String() + text + "\n"
}

func TestFreeKeyIsNotMistakenForAnother(t *testing.T) {
	// The key inside the signature must be the allowed one, byte for byte.
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	ada, _ := newKey(t)
	c := parsedCommit{payload: []byte("x")}
	c.signature = []byte(signSSH(t, signer, sshsig.HashSHA512, "git", c.payload))
	allowed, err := ParseSigners("s", []byte(allow("ada@x", "", ada.PublicKey())))
	if err != nil {
		t.Fatal(err)
	}
	_, err = verifySSH(strings.Repeat("0", 40), c, allowed)
	if _, unknown := errors.AsType[*UnknownSignerError](err); !unknown {
		t.Errorf("got %v, want a *UnknownSignerError", err)
	}
}

func TestVerifyOfWhatIsNotThere(t *testing.T) {
	r := newRepo(t, Options{})
	if _, err := r.Verify(t.Context(), Commit{Hash: "x"}, Signers{}); err == nil {
		t.Error("got no error for a short hash")
	}
	if _, err := r.Verify(t.Context(), Commit{Hash: strings.Repeat("0a", 20)}, Signers{}); !errors.Is(err, ErrBroken) {
		t.Errorf("got %v, want ErrBroken", err)
	}
}
