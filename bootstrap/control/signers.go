package control

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"golang.org/x/crypto/ssh"
)

// gitNamespace is the namespace of every SSH signature that git makes (gitformat-signature(5)).
const gitNamespace = "git"

// Signers are those whose signature makes a commit acceptable. The zero value accepts nobody.
type Signers struct {
	ssh []sshSigner
	pgp []pgpSigner
}

// sshSigner is one line of an allowed signers file that counts for commits.
type sshSigner struct {
	principals    string
	key           []byte // in wire format
	after, before time.Time
}

// pgpSigner is one OpenPGP certificate.
type pgpSigner struct {
	fingerprint string // of the primary key, upper-case hexadecimal digits
	armored     []byte
}

// Empty says that nobody is allowed, so that no commit can be verified.
func (s Signers) Empty() bool { return len(s.ssh)+len(s.pgp) == 0 }

// Problem is one thing wrong in an allowed signers file.
type Problem struct {
	File string
	Line int // counted from 1
	Msg  string
}

func (p *Problem) Error() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Msg) }

// Delimiters of an armored OpenPGP certificate (RFC 9580, section 6.2).
const (
	pgpBegin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	pgpEnd   = "-----END PGP PUBLIC KEY BLOCK-----"
)

// maxSigners bounds the file: it is read at every boot and sent to every new node.
const maxSigners = 1 << 20

// LoadSigners reads an allowed signers file and, beside it, OpenPGP certificates from path.d/*.asc.
func LoadSigners(path string) (Signers, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Signers{}, fmt.Errorf("allowed signers: %w", err)
	}
	files := map[string][]byte{path: data}
	names, err := filepath.Glob(path + ".d/*.asc")
	if err != nil {
		return Signers{}, fmt.Errorf("allowed signers: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		if files[name], err = os.ReadFile(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Signers{}, fmt.Errorf("allowed signers: %w", err)
		}
	}
	var all Signers
	var errs []error
	for _, name := range append([]string{path}, names...) {
		if len(names) > 0 && name == path && len(bytes.TrimSpace(data)) == 0 {
			continue // OpenPGP only
		}
		s, err := ParseSigners(name, files[name])
		errs = append(errs, err)
		all.ssh, all.pgp = append(all.ssh, s.ssh...), append(all.pgp, s.pgp...)
	}
	if err := errors.Join(errs...); err != nil {
		return Signers{}, err
	}
	return all, nil
}

// ParseSigners reads a file in the format of ssh-keygen(1), ALLOWED SIGNERS: principals, options, key
// type, key. As an extension it may hold armored OpenPGP certificates, each from its BEGIN to its END
// line. The error joins one *Problem for everything wrong; a file that allows nobody is one, too.
//
// It is stricter than ssh-keygen: an option or value that is not understood is an error and not ignored.
// Certificate authorities are refused, because signatures by certificates are not accepted; so are
// certificates, DSA keys, and RSA keys below 2048 bits. A line whose namespaces do not include git is
// checked and then left out. Times without a final Z are in the machine's time zone, as ssh-keygen has
// it. Principals only name a signer: git does not compare them with the author, and neither do we.
func ParseSigners(name string, data []byte) (Signers, error) {
	p := signersParser{name: name}
	if len(data) > maxSigners {
		return Signers{}, &Problem{name, 1, fmt.Sprintf("the file is larger than %d bytes", maxSigners)}
	}
	for line := range bytes.Lines(data) {
		p.n++
		p.line(strings.TrimRight(string(line), "\r\n"))
	}
	if p.block != nil {
		p.problem(p.blockAt, "the OpenPGP block has no END line")
	}
	if len(p.errs) == 0 && p.keys == 0 {
		p.problem(max(1, p.n), "nobody is allowed: no line holds a key")
	}
	if len(p.errs) > 0 {
		return Signers{}, errors.Join(p.errs...)
	}
	return p.signers, nil
}

type signersParser struct {
	name    string
	n       int // line
	keys    int // lines and blocks that hold a proper key
	errs    []error
	signers Signers
	block   []byte // the OpenPGP block being read; nil outside one
	blockAt int
}

func (p *signersParser) problem(line int, format string, args ...any) {
	p.errs = append(p.errs, &Problem{p.name, line, fmt.Sprintf(format, args...)})
}

func (p *signersParser) line(text string) {
	switch {
	case p.block != nil:
		p.block = append(append(p.block, text...), '\n')
		if strings.TrimSpace(text) == pgpEnd {
			p.certificates()
			p.block = nil
		}
	case strings.TrimSpace(text) == pgpBegin:
		p.block, p.blockAt = []byte(pgpBegin+"\n"), p.n
	case strings.TrimLeft(text, " \t") == "" || strings.TrimLeft(text, " \t")[0] == '#':
	default:
		s, forGit, err := parseSigner(text)
		if err != nil {
			p.problem(p.n, "%v", err)
			return
		}
		p.keys++
		if forGit {
			p.signers.ssh = append(p.signers.ssh, s)
		}
	}
}

// certificates reads the OpenPGP block that was collected.
func (p *signersParser) certificates() {
	list, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(p.block))
	if err != nil {
		p.problem(p.blockAt, "OpenPGP block: %v", err)
		return
	}
	for _, e := range list {
		if e.PrivateKey != nil {
			p.problem(p.blockAt, "the OpenPGP block holds a private key: export only the public one")
			continue
		}
		p.keys++
		p.signers.pgp = append(p.signers.pgp, pgpSigner{fmt.Sprintf("%X", e.PrimaryKey.Fingerprint), p.block})
	}
}

// parseSigner reads one line; forGit says whether its namespaces allow signing commits.
func parseSigner(text string) (s sshSigner, forGit bool, err error) {
	if strings.ContainsAny(text, "\x00\r") {
		return s, false, errors.New("control character in the line")
	}
	var rest string
	s.principals, rest = field(text)
	if err := checkPrincipals(s.principals); err != nil {
		return s, false, err
	}
	forGit = true
	keyType, rest := field(rest)
	if !isKeyType(keyType) {
		if forGit, err = s.options(keyType); err != nil {
			return s, false, err
		}
		keyType, rest = field(rest)
	}
	encoded, _ := field(rest) // what follows is a comment
	if keyType == "" || encoded == "" {
		return s, false, errors.New("want principals, options if any, key type and key")
	}
	s.key, err = parseKey(keyType, encoded)
	return s, forGit, err
}

// field cuts the first field off; spaces inside double quotes belong to it.
func field(text string) (first, rest string) {
	text = strings.TrimLeft(text, " \t")
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted && i+1 < len(text) && text[i+1] == '"':
			i++
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return text[:i], text[i:]
		}
	}
	return text, ""
}

func checkPrincipals(list string) error {
	if strings.ContainsAny(list, `"\`) {
		return errors.New("quotes and backslashes in principals are not supported")
	}
	some := false
	for p := range strings.SplitSeq(list, ",") {
		if p == "" || p == "!" {
			return errors.New("an empty principal")
		}
		some = some || p[0] != '!'
	}
	if !some {
		return errors.New("all principals are negated: the line allows nobody")
	}
	return nil
}

// isKeyType tells a key type from options, by its looks: an unknown type should be called that.
func isKeyType(s string) bool {
	return slices.ContainsFunc([]string{"ssh-", "ecdsa-", "sk-", "rsa-"}, func(prefix string) bool {
		return strings.HasPrefix(s, prefix)
	})
}

// options reads the comma-separated options of a line. Values are in double quotes, as in ssh-keygen.
func (s *sshSigner) options(text string) (forGit bool, err error) {
	forGit = true
	given := map[string]bool{}
	for text != "" {
		end := strings.IndexAny(text, "=,")
		if end < 0 {
			end = len(text)
		}
		name := strings.ToLower(text[:end])
		text = text[end:]
		value := ""
		if strings.HasPrefix(text, "=") {
			if value, text, err = quotedValue(text[1:]); err != nil {
				return false, fmt.Errorf("option %s: %w", name, err)
			}
		}
		if given[name] {
			return false, fmt.Errorf("option %s is there twice", name)
		}
		given[name] = true
		switch name {
		case "cert-authority":
			err = errors.New("not supported: list each signer's own key instead of a certificate authority")
		case "namespaces":
			forGit, err = matches(value, gitNamespace)
		case "valid-after":
			s.after, err = parseTime(value)
		case "valid-before":
			s.before, err = parseTime(value)
		default:
			err = errors.New("unknown; known are namespaces, valid-after and valid-before")
		}
		if err != nil {
			return false, fmt.Errorf("option %.40q: %w", name, err)
		}
		if text != "" {
			if text[0] != ',' || len(text) == 1 {
				return false, fmt.Errorf("want a comma and another option, or a space and the key, after option %s", name)
			}
			text = text[1:]
		}
	}
	if !s.before.IsZero() && !s.after.Before(s.before) {
		return false, errors.New("valid-before is not after valid-after: the key is never valid")
	}
	return forGit, nil
}

// quotedValue reads "value"; \" stands for a quote in it, as in opt_dequote of OpenSSH.
func quotedValue(text string) (value, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		return "", "", errors.New("the value must stand in double quotes")
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return b.String(), text[i+1:], nil
		case text[i] == '\\' && i+1 < len(text) && text[i+1] == '"':
			i++
		}
		b.WriteByte(text[i])
	}
	return "", "", errors.New("the closing quote is missing")
}

// matches implements a pattern-list of ssh_config(5): * and ? match, a leading ! negates and wins.
func matches(list, name string) (bool, error) {
	found := false
	for pattern := range strings.SplitSeq(list, ",") {
		positive, negated := strings.CutPrefix(pattern, "!")
		if positive == "" {
			return false, errors.New("empty pattern")
		}
		if !matchPattern(positive, name) {
			continue
		}
		if negated {
			return false, nil
		}
		found = true
	}
	return found, nil
}

// matchPattern compares with * and ?, remembering only the last star: enough, and never exponential.
func matchPattern(pattern, name string) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// parseTime reads YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z].
func parseTime(text string) (time.Time, error) {
	digits, utc := strings.CutSuffix(text, "Z")
	zone := time.Local
	if utc {
		zone = time.UTC
	}
	layout := map[int]string{8: "20060102", 12: "200601021504", 14: "20060102150405"}[len(digits)]
	t, err := time.ParseInLocation(layout, digits, zone)
	if layout == "" || err != nil || t.Unix() <= 0 { // OpenSSH: zero would mean no limit
		return time.Time{}, fmt.Errorf("%q is not a time: want YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z]", text)
	}
	return t, nil
}

func parseKey(keyType, encoded string) ([]byte, error) {
	if strings.Contains(keyType, "-cert-v0") {
		return nil, errors.New("this is a certificate: list the plain key")
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, errors.New("the key is not base64")
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return nil, fmt.Errorf("key of type %.40q: %w", keyType, err)
	}
	if key.Type() != keyType {
		return nil, fmt.Errorf("the key says it is %s, the line says %.40s", key.Type(), keyType)
	}
	return wire, strong(key)
}
