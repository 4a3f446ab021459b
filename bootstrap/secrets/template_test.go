package secrets

import (
	"strings"
	"testing"
)

const goodTemplate = `
mail:
  imap:  {kind: tls, names: [mail.blog.example, "*.blog.example", 10.0.0.1, "2001:db8::1"], publish: true}
  dkim:  {kind: rsa, bits: 2048}
  alice: {kind: password, length: 24, hash: blf-crypt}
repo:
  apt:   {kind: openpgp, uid: "Blog packages <apt@blog.example>"}
common:
  salt:  {kind: random, bytes: 16}
  plain: {kind: password}
`

func TestParseTemplateReportsAllProblemsAtOnceWithPositions(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"good", goodTemplate, ""},
		{"asks for nothing", "{}\n", ""},
		{"empty", "", "t:1: is empty"},
		{"not a mapping", "[]", "t:1:1: the template must be a mapping (key: value)"},
		{"kinds", "mail:\n  a: {}\n  b: {kind: x}\n  c: {kind: [tls]}\n  d: text\n", `t:2:6: an entry needs a kind: openpgp, password, random, rsa or tls
t:3:6: an entry needs a kind: openpgp, password, random, rsa or tls
t:4:6: an entry needs a kind: openpgp, password, random, rsa or tls
t:4:13: kind must be text
t:5:6: an entry needs a kind: openpgp, password, random, rsa or tls`},
		{"tls", "mail:\n  a: {kind: tls}\n  b: {kind: tls, names: []}\n  c: {kind: tls, names: [UPPER.example, a.example, a.example, 'fe80::1%x'], publish: maybe}\n  d: {kind: tls, names: [x], bits: 2048}\n", `t:2:6: names is missing
t:3:25: names must be a list of 1 to 100 host names or addresses
t:4:26: is neither a host name in lower case nor an address
t:4:52: stands twice
t:4:63: is neither a host name in lower case nor an address
t:4:86: publish must be true or false
t:5:30: unknown key in an entry of kind tls (known: kind, names, publish)`},
		{"sizes", "mail:\n  a: {kind: rsa, bits: 1024}\n  b: {kind: password, length: 15}\n  c: {kind: random, bytes: many}\n  d: {kind: password, length: 100, hash: blf-crypt}\n  e: {kind: password, hash: md5}\n", `t:2:24: bits must be a whole number from 2048 to 4096
t:3:31: length must be a whole number from 16 to 128
t:4:28: bytes must be a whole number from 16 to 1024
t:5:6: a password with a hash has at most 72 characters, for bcrypt reads no more
t:6:29: hash must be blf-crypt`},
		{"uid", "repo:\n  a: {kind: openpgp}\n  b: {kind: openpgp, uid: nobody}\n  c: {kind: openpgp, uid: \"a (b) <c@d>\"}\n", `t:2:6: uid is missing
t:3:27: uid must be "Name <mail@domain>"
t:4:27: uid must be "Name <mail@domain>"`},
		{"names", "Mail: {}\nmail:\n  ../x: {kind: password}\n", `t:1:1: a group's name is a role's name or common: lower-case letters, digits, - and _, at most 63
t:3:3: an entry's name is letters, digits and ._@+-, not starting with . or -, at most 100`},
		{"one file twice", "mail:\n  a: {kind: tls, names: [x], publish: true}\n  a.key: {kind: password}\nlb:\n  a: {kind: tls, names: [x], publish: true}\n", `t:3:3: makes the file mail/a.key, as the entry on line 2 does
t:5:3: makes the file common/a.crt, as the entry on line 2 does`},
		{"large", strings.Repeat("#", MaxTemplate+1), "t: is larger than 262144 bytes"},
	} {
		_, err := ParseTemplate("t", []byte(c.in))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func FuzzParseTemplate(f *testing.F) {
	f.Add([]byte(goodTemplate))
	f.Add([]byte("a: {b: {kind: tls, kind: rsa}}"))
	f.Add([]byte("a: &x {b: {kind: password}}\nc: *x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tpl, err := ParseTemplate("t", data)
		if err != nil {
			return
		}
		for _, e := range tpl.entries {
			for _, p := range append(e.kind.public(e), path{e.group, e.kind.secret(e)}) {
				if !groupPattern.MatchString(p.group) || !filePattern.MatchString(p.name) {
					t.Fatalf("would make %q/%q", p.group, p.name)
				}
			}
		}
	})
}
