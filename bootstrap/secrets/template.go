package secrets

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxTemplate bounds a template file, in bytes.
const MaxTemplate = 256 << 10

// maxHashed is how much of a password bcrypt reads, in bytes.
const maxHashed = 72

// Template says which secret files Puppet needs and how to make those that nobody has to choose. It is the control
// repo's puppet/secrets.yaml, holds nothing secret, and maps group (a role, or common) → name → what it is:
//
//	mail:
//	  imap:  {kind: tls, names: [mail.blog.example], publish: true}
//	  dkim:  {kind: rsa, bits: 2048}
//	  alice: {kind: password, length: 24, hash: blf-crypt}
//	repo:
//	  apt:   {kind: openpgp, uid: "Blog packages <apt@blog.example>"}
//	common:
//	  salt:  {kind: random, bytes: 16}
//
// An entry becomes these files:
//
//	tls       NAME.key (PEM, PKCS #8, ECDSA P-256) and NAME.crt (PEM, self-signed for ten years, for all the names and
//	          addresses in names); publish: true puts a copy of NAME.crt into group common, as the authority for clients
//	rsa       NAME.key (PEM, PKCS #8; bits 2048 to 4096, default 2048) and NAME.pub (one line: the DKIM p= value)
//	openpgp   NAME.asc (armored private Ed25519 key without a passphrase, good for signing only), and in group common
//	          NAME.pub.asc (the armored public key)
//	password  NAME (length 16 to 128 letters and digits, default 32); hash: blf-crypt adds NAME.hash, a {BLF-CRYPT}
//	          line as Dovecot and crypt(3) read it
//	random    NAME (bytes 16 to 1024, default 32, as lower-case hex)
//
// NAME.pub, NAME.hash and what password and random make do not end with a newline. A file the operator must choose,
// such as the login of a mail relay, is put into the bundle by hand and not named here. A file that is there is never
// made again, whatever the template says now; to renew one, remove it (a certificate: NAME.crt of its own group).
type Template struct {
	entries []entry
}

// entry is one line of a template.
type entry struct {
	group, name string
	kind        kind
	names       []string // tls
	publish     bool     // tls
	size        int      // rsa: bits; password: length; random: bytes
	uid         string   // openpgp
	hash        bool     // password
}

// path names a file of the bundle.
type path struct{ group, name string }

// kind is how one sort of entry is written in the template, made and completed.
type kind struct {
	keys []string // besides kind
	// secret names the file that cannot be made again, public those that follow from it, the one in use first.
	secret func(e entry) string
	public func(e entry) []path
	maker  maker
}

var kinds = map[string]kind{
	"tls": {
		keys:   []string{"names", "publish"},
		secret: func(e entry) string { return e.name + ".key" },
		public: func(e entry) []path {
			paths := []path{{e.group, e.name + ".crt"}}
			if e.publish && e.group != GroupCommon {
				paths = append(paths, path{GroupCommon, e.name + ".crt"})
			}
			return paths
		},
		maker: tlsMaker{},
	},
	"rsa": {
		keys:   []string{"bits"},
		secret: func(e entry) string { return e.name + ".key" },
		public: func(e entry) []path { return []path{{e.group, e.name + ".pub"}} },
		maker:  rsaMaker{},
	},
	"openpgp": {
		keys:   []string{"uid"},
		secret: func(e entry) string { return e.name + ".asc" },
		public: func(e entry) []path { return []path{{GroupCommon, e.name + ".pub.asc"}} },
		maker:  openpgpMaker{},
	},
	"password": {
		keys:   []string{"length", "hash"},
		secret: func(e entry) string { return e.name },
		public: func(e entry) []path {
			if !e.hash {
				return nil
			}
			return []path{{e.group, e.name + ".hash"}}
		},
		maker: passwordMaker{},
	},
	"random": {
		keys:   []string{"bytes"},
		secret: func(e entry) string { return e.name },
		public: func(entry) []path { return nil },
		maker:  randomMaker{},
	},
}

var (
	// entryPattern leaves room for the longest suffix.
	entryPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._@+-]{0,99}$`)
	dnsPattern   = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	uidPattern   = regexp.MustCompile(`^([^()<>@\x00-\x1f\x7f]*[^()<>@\x00-\x20\x7f]) <([^()<>\s\x00-\x1f\x7f]+@[^()<>\s@\x00-\x1f\x7f]+)>$`)
)

// ParseTemplate reads a template. It is strict; the error joins every *Problem with its position. name stands for the
// file in the problems. An empty mapping is a template that asks for nothing.
func ParseTemplate(name string, data []byte) (Template, error) {
	d := &document{file: name}
	t := Template{}
	made := map[path]int{} // line of the entry that makes the file
	if root := d.root(data, MaxTemplate); root != nil {
		d.mapping(root, "the template", func(group, list *yaml.Node) {
			if !groupPattern.MatchString(group.Value) {
				d.problem(group, "%s", groupRule)
				return
			}
			d.mapping(list, "a group", func(name, n *yaml.Node) {
				if !entryPattern.MatchString(name.Value) {
					d.problem(name, "an entry's name is letters, digits and ._@+-, not starting with . or -, at most 100")
					return
				}
				if e, ok := d.entry(group.Value, name.Value, n); ok {
					d.claim(made, name, e)
					t.entries = append(t.entries, e)
				}
			})
		})
	}
	if err := d.err(); err != nil {
		return Template{}, err
	}
	return t, nil
}

// entry reads what stands behind a name. It says false where not even the kind is clear.
func (d *document) entry(group, name string, n *yaml.Node) (entry, bool) {
	e := entry{group: group, name: name}
	what, found := "", false
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "kind" {
				what = d.text(n.Content[i+1], "kind")
				e.kind, found = kinds[what]
			}
		}
	}
	if !found {
		d.problem(n, "an entry needs a kind: openpgp, password, random, rsa or tls")
		return entry{}, false
	}
	readers := map[string]func(*yaml.Node){
		"names":   func(n *yaml.Node) { e.names = d.names(n) },
		"publish": func(n *yaml.Node) { e.publish = d.flag(n, "publish") },
		"bits":    func(n *yaml.Node) { e.size = d.number(n, "bits", 2048, 4096) },
		"length":  func(n *yaml.Node) { e.size = d.number(n, "length", 16, 128) },
		"bytes":   func(n *yaml.Node) { e.size = d.number(n, "bytes", 16, 1024) },
		"uid":     func(n *yaml.Node) { e.uid = d.uid(n) },
		"hash": func(n *yaml.Node) {
			if e.hash = true; d.text(n, "hash") != "blf-crypt" {
				d.problem(n, "hash must be blf-crypt")
			}
		},
	}
	known := map[string]func(*yaml.Node){"kind": func(*yaml.Node) {}}
	for _, key := range e.kind.keys {
		known[key] = readers[key]
	}
	switch what {
	case "rsa":
		e.size = 2048
	case "password", "random":
		e.size = 32
	}
	d.fields(n, "an entry of kind "+what, known)
	switch what {
	case "tls":
		d.required(n, "names")
	case "openpgp":
		d.required(n, "uid")
	}
	if e.hash && e.size > maxHashed {
		d.problem(n, "a password with a hash has at most %d characters, for bcrypt reads no more", maxHashed)
	}
	return e, true
}

// claim notes that e makes its files, and refuses the entry if another makes one of them.
func (d *document) claim(made map[path]int, at *yaml.Node, e entry) {
	for _, p := range append(e.kind.public(e), path{e.group, e.kind.secret(e)}) {
		if line, taken := made[p]; taken {
			d.problem(at, "makes the file %s/%s, as the entry on line %d does", p.group, p.name, line)
			continue
		}
		made[p] = at.Line
	}
}

func (d *document) flag(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
		d.problem(n, "%s must be true or false", what)
	}
	return n.Value == "true"
}

func (d *document) names(n *yaml.Node) []string {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 || len(n.Content) > 100 {
		d.problem(n, "names must be a list of 1 to 100 host names or addresses")
		return nil
	}
	var names []string
	for _, item := range n.Content {
		name := d.text(item, "a name")
		if name == "" {
			continue
		}
		addr, err := netip.ParseAddr(name)
		if isAddr := err == nil && addr.Zone() == ""; !isAddr && (!dnsPattern.MatchString(name) || len(name) > 253) {
			d.problem(item, "is neither a host name in lower case nor an address")
		} else if slices.Contains(names, name) {
			d.problem(item, "stands twice")
		}
		names = append(names, name)
	}
	return names
}

func (d *document) uid(n *yaml.Node) string {
	uid := d.text(n, "uid")
	if uid != "" && (!uidPattern.MatchString(uid) || len(uid) > 200 || strings.TrimSpace(uid) != uid) {
		d.problem(n, `uid must be "Name <mail@domain>"`)
	}
	return uid
}
