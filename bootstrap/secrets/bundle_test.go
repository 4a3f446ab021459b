package secrets

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"filippo.io/age"
	"pgregory.net/rapid"
)

const goodBundle = `version: 1
cluster_key: 0123456789abcdef0123456789abcdef
provider:
  digitalocean: dop_v1_token
tsig:
  ddns: {algorithm: hmac-sha256, secret: c2VjcmV0c2VjcmV0}
restic: restic password
ledger: {access_key: AK, secret_key: SK}
webhook: said by the git server
files:
  common:
    ca.crt: |
      -----BEGIN CERTIFICATE-----
      x
      -----END CERTIFICATE-----
  mail:
    raw: !!binary /wAB
`

func TestParseBundleReadsEveryField(t *testing.T) {
	got := must(ParseBundle("b.yaml", []byte(goodBundle)))
	s := NewSecret
	want := Bundle{
		Version: 1, ClusterKey: s("0123456789abcdef0123456789abcdef"),
		Provider: map[string]Secret{"digitalocean": s("dop_v1_token")},
		TSIG:     map[string]TSIGKey{"ddns": {Algorithm: "hmac-sha256", Secret: s("c2VjcmV0c2VjcmV0")}},
		Restic:   s("restic password"), Ledger: LedgerKeys{AccessKey: s("AK"), SecretKey: s("SK")}, Webhook: s("said by the git server"),
		Files: map[string]map[string]Secret{
			"common": {"ca.crt": s("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")},
			"mail":   {"raw": s("\xff\x00\x01")},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got another bundle than stands in the file")
	}
}

func TestParseBundleReportsAllProblemsAtOnceWithPositions(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", "b:1: is empty"},
		{"only a comment", "# x\n", "b:1: is empty"},
		{"not a mapping", "- x\n", "b:1:1: the bundle must be a mapping (key: value)"},
		{"missing", "restic: x\n", "b:1:1: version is missing\nb:1:1: cluster_key is missing"},
		{"syntax", "version: 1\n  x: [\n", "b:2: is not valid YAML: mapping values are not allowed in this context"},
		{"anchor", "version: *CANARY\n", "b: is not valid YAML: refers to an anchor that is not there"},
		{"two documents", goodBundle + "---\nx: 1\n", "b:18:1: holds a second document: only one is allowed"},
		{"newer", "version: 2\ncluster_key: 0123456789abcdef0123456789abcdef\n", "b:1:10: version is newer than this program, which reads 1: upgrade it"},
		{"many", "version: one\ncluster_key: short\nCANARY: 1\nrestic: 12\nrestic: x\nprovider: {BAD NAME: x, p: }\nfiles: {mail: {../x: y, ok: [1], e: ''}, Mail: {}}\nledger: {access_key: a}\ntsig: {k: {algorithm: md5, secret: '?'}}\nwebhook: short\n",
			`b:1:10: version must be 1
b:2:14: cluster_key must be at least 32 random characters
b:3:1: unknown key in the bundle (known: cluster_key, files, ledger, provider, restic, tsig, version, webhook)
b:4:9: restic must be text: put it in quotes
b:5:1: key in the bundle stands already on line 4
b:6:12: provider: a name here is lower-case letters, digits and ._-, at most 255
b:6:28: a provider's token is empty
b:7:16: a file's name is letters, digits and ._@+-, not starting with . or -, at most 128
b:7:29: a file must be text
b:7:37: a file is empty
b:7:42: a group's name is a role's name or common: lower-case letters, digits, - and _, at most 63
b:8:9: secret_key is missing
b:9:23: algorithm must be one of hmac-sha224, hmac-sha256, hmac-sha384, hmac-sha512
b:9:36: secret of a tsig key must be base64
b:10:10: webhook must be at least 16 random characters`},
		{"alias", "version: 1\ncluster_key: &a 0123456789abcdef0123456789abcdef\nrestic: *a\n", "b:3:9: restic must be text"},
		{"merge", "version: 1\ncluster_key: 0123456789abcdef0123456789abcdef\n<<: {restic: x}\n", "b:3:1: key in the bundle must be plain text"},
		{"large", strings.Repeat("#", MaxBundle+1), "b: is larger than 4194304 bytes"},
	} {
		_, err := ParseBundle("b", []byte(c.in))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got\n%v\nwant\n%s", c.name, err, c.want)
		}
	}
}

func TestBundleErrorsNeverQuote(t *testing.T) {
	// The canary stands in every place where a slip of the hand could put a secret.
	for _, in := range []string{
		canary, canary + ": 1", "- " + canary, "version: " + canary, "version: 1\ncluster_key:\n  " + canary + ": x",
		"version: 1\ncluster_key: [" + canary + "]", "? {a: " + canary + "}\n: x", "restic: *" + canary, "restic: !" + canary + " x",
		"restic: !!int " + canary, "tsig: {" + canary + ": x}", "tsig: {k: {" + canary + ": x}}", "tsig: {k: {algorithm: " + canary + ", secret: " + canary + "}}",
		"files: {" + canary + ": {}}", "files: {mail: {" + canary + "/x: y}}", "files: {mail: {x: !!binary " + canary + "}}", "%" + canary,
		"provider: " + canary, "provider: {X" + canary + ": 1}", "ledger: {access_key: " + canary + "}", "restic: \"" + canary, "restic: '" + canary,
		"a: &" + canary + " x\nb: *" + canary + "x", "restic: |9\n" + canary, "\t" + canary, "restic: @" + canary, "\xff" + canary, "{" + canary, canary + "\n  : x\n y",
		"%TAG ! " + canary + "\n---\nx", "%YAML " + canary, "a: !" + canary + "!x y", "restic: \"\\" + canary + "\"", "cluster_key: x\ncluster_key: " + canary,
	} {
		_, err := ParseBundle("b", []byte(in))
		if err == nil {
			t.Errorf("%q was accepted", in)
		}
		mustHide(t, err)
		_, err = Open([]byte(in), must(age.GenerateX25519Identity()))
		mustHide(t, err)
	}
}

func TestValidateRefusesWhatTheParserRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Bundle){
		"version":       func(b *Bundle) { b.Version = 2 },
		"cluster key":   func(b *Bundle) { b.ClusterKey = NewSecret("short") },
		"provider":      func(b *Bundle) { b.Provider[".."] = NewSecret(canary) },
		"empty token":   func(b *Bundle) { b.Provider["x"] = Secret{} },
		"tsig":          func(b *Bundle) { b.TSIG["x"] = TSIGKey{Algorithm: "md5", Secret: NewSecret(canary)} },
		"ledger":        func(b *Bundle) { b.Ledger.SecretKey = Secret{} },
		"webhook":       func(b *Bundle) { b.Webhook = NewSecret("short") },
		"group":         func(b *Bundle) { b.Files["../x"] = nil },
		"file":          func(b *Bundle) { b.Files["mail"]["../x"] = NewSecret(canary) },
		"file is a dot": func(b *Bundle) { b.Files["mail"]["."] = NewSecret(canary) },
		"empty file":    func(b *Bundle) { b.Files["mail"]["x"] = Secret{} },
	} {
		b := must(ParseBundle("b", []byte(goodBundle)))
		spoil(&b)
		if err := b.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			mustHide(t, err)
		}
		if _, err := Seal(b, []age.Recipient{must(age.GenerateX25519Identity()).Recipient()}); err == nil {
			t.Errorf("%s: sealed", name)
		}
		if err := b.WriteFiles(t.TempDir()+"/s", "mail"); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

// anyBundle draws valid bundles with hostile content: control characters, invalid UTF-8, YAML's own syntax.
func anyBundle() *rapid.Generator[Bundle] {
	secret := rapid.Map(rapid.OneOf(
		rapid.StringN(1, 60, -1),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 60), func(b []byte) string { return string(b) }),
		rapid.StringMatching(`[ -~]{0,20}\n([ -~]{0,100}\n){0,5}`),
		rapid.StringMatching(`[ \t\r\n#:&*!|>'"%@{}\[\],?-]{1,12}`),
		rapid.SampledFrom([]string{"true", "~", "null", "1", "1.5", "0x1", "2001-01-01", "<<", "=", "---", "...", "\ufeffx", "a\u0085b", "a\u2028b", "\n", "\n\n", "x\n\n", " x\n", "y", "no", "\U0001F600", "\ufffe", "\x00"}),
	), NewSecret)
	name := rapid.StringMatching(`[a-z0-9][a-z0-9_-]{0,8}`)
	key := rapid.Custom(func(t *rapid.T) TSIGKey {
		raw := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "raw")
		return TSIGKey{Algorithm: rapid.SampledFrom(tsigAlgorithms).Draw(t, "algorithm"), Secret: NewSecret(base64.StdEncoding.EncodeToString(raw))}
	})
	return rapid.Custom(func(t *rapid.T) Bundle {
		b := Bundle{
			Version:    1,
			ClusterKey: NewSecret(rapid.StringN(32, 64, -1).Draw(t, "cluster key")),
			Provider:   rapid.MapOfN(name, secret, 0, 3).Draw(t, "provider"),
			TSIG:       rapid.MapOfN(name, key, 0, 3).Draw(t, "tsig"),
			Restic:     rapid.OneOf(secret, rapid.Just(Secret{})).Draw(t, "restic"),
			Webhook:    rapid.SampledFrom([]Secret{{}, NewSecret(": #16 bytes\xff\n&more")}).Draw(t, "webhook"),
			Files:      rapid.MapOfN(name, rapid.MapOfN(rapid.StringMatching(`[A-Za-z0-9_][A-Za-z0-9._@+-]{0,8}`), secret, 0, 4), 0, 3).Draw(t, "files"),
		}
		if rapid.Bool().Draw(t, "ledger") {
			b.Ledger = LedgerKeys{AccessKey: secret.Draw(t, "access"), SecretKey: secret.Draw(t, "secret")}
		}
		return b
	})
}

// same compares bundles; an empty map is as good as none.
func same(a, b Bundle) bool {
	if len(a.Provider)+len(b.Provider) == 0 {
		a.Provider, b.Provider = nil, nil
	}
	if len(a.TSIG)+len(b.TSIG) == 0 {
		a.TSIG, b.TSIG = nil, nil
	}
	if len(a.Files)+len(b.Files) == 0 {
		a.Files, b.Files = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

func TestSealedBundleOpensToTheSameForEachRecipientOnly(t *testing.T) {
	cluster, beachhead, operator := must(age.GenerateX25519Identity()), must(age.GenerateX25519Identity()), must(age.GenerateX25519Identity())
	stranger := must(age.GenerateX25519Identity())
	to := []age.Recipient{cluster.Recipient(), beachhead.Recipient(), operator.Recipient()}
	rapid.Check(t, func(t *rapid.T) {
		b := anyBundle().Draw(t, "bundle")
		sealed, err := Seal(b, to)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(sealed, []byte(b.ClusterKey.Reveal())) {
			t.Fatal("the cluster key stands in the sealed file")
		}
		for _, id := range []age.Identity{cluster, beachhead, operator} {
			got, err := Open(sealed, stranger, id)
			if err != nil {
				t.Fatal(err)
			}
			if !same(got, b) {
				t.Fatalf("opened another bundle than was sealed")
			}
		}
		if _, err := Open(sealed, stranger); !errors.Is(err, ErrNotARecipient) {
			t.Fatalf("a stranger opens it: %v", err)
		}
	})
}

func TestMarshalIsDeterministicAndReadable(t *testing.T) {
	b := must(ParseBundle("b", []byte(goodBundle)))
	first, second := must(b.Marshal()), must(b.Marshal())
	if !bytes.Equal(first, second) {
		t.Error("two writings differ")
	}
	for _, want := range []string{"cluster_key: \"01", "    ca.crt: |\n      -----BEGIN", "digitalocean: dop_v1_token", "raw: !!binary"} {
		if !bytes.Contains(first, []byte(want)) {
			t.Errorf("no %q in\n%s", want, first)
		}
	}
}

func TestOpenRefusesDamage(t *testing.T) {
	id := must(age.GenerateX25519Identity())
	b := must(ParseBundle("b", []byte(goodBundle)))
	b.Restic = NewSecret(canary)
	sealed := must(Seal(b, []age.Recipient{id.Recipient()}))
	for i := range sealed {
		for _, damaged := range [][]byte{sealed[:i], append(append(bytes.Clone(sealed[:i]), sealed[i]^4), sealed[i+1:]...)} {
			got, err := Open(damaged, id)
			if err == nil && !same(got, b) {
				t.Fatalf("byte %d changed: opened something else", i)
			}
			mustHideText(t, err)
		}
	}
	if _, err := Open(sealed); err == nil {
		t.Error("opened without an identity")
	}
	if _, err := Open(make([]byte, MaxSealed+1), id); err == nil {
		t.Error("opened more than fits")
	}
	if _, err := Seal(b, nil); err == nil {
		t.Error("sealed for nobody")
	}
}

func mustHideText(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(fmt.Sprintf("%v %#v", err, err), "CANARY") {
		t.Fatalf("shows the secret: %v", err)
	}
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte(goodBundle))
	for _, s := range []string{"", "a: &a [*a]", "? x", "#\n  #x\n- y", "version: 1\ncluster_key: !!binary aGVsbG8=", "%YAML 1.1\n---\n{}", "a: |\n\tx", "- - - -", "<<: {a: b}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBundle("b", data)
		if err != nil {
			return
		}
		again, err := ParseBundle("b", must(b.Marshal()))
		if err != nil || !same(again, b) {
			t.Fatalf("accepted, but does not come back: %v", err)
		}
	})
}
