package secrets

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	// backdate is how far before now keys and certificates begin, so that a node whose clock is behind accepts them.
	backdate = 24 * time.Hour

	certificateYears = 10

	passwordLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)

var errPrivateUnreadable = errors.New("what stands there cannot be read as the key of this kind: repair or remove it")

// maker makes the files of one kind. Its errors never quote the secret file.
type maker interface {
	// secret makes the content that all else follows from.
	secret(e entry, now time.Time) (string, error)
	// public makes the content of the public files, the same for all of an entry's, from the secret one.
	public(e entry, secret string, now time.Time) (string, error)
}

// Generate returns b completed: the cluster key, the restic password, the webhook's secret and every file that t asks for, each only if it is
// missing; and the names of what it made, in order ("cluster_key", "mail/imap.key"). A secret file that is there stays as
// it is and its missing public parts are made from it; where a secret file is missing, it and all its public parts are
// made anew. b itself is not changed. Randomness is the operating system's.
func Generate(b Bundle, t Template, now time.Time) (Bundle, []string, error) {
	var made []string
	b.Files = copyFiles(b.Files)
	if b.Version == 0 {
		b.Version = BundleVersion
	}
	if b.ClusterKey.IsZero() {
		b.ClusterKey = NewSecret(randomText(43))
		made = append(made, "cluster_key")
	}
	if b.Restic.IsZero() {
		b.Restic = NewSecret(randomText(43))
		made = append(made, "restic")
	}
	if b.Webhook.IsZero() {
		b.Webhook = NewSecret(randomText(43))
		made = append(made, "webhook")
	}
	for _, e := range t.entries {
		names, err := e.complete(b.Files, now)
		if err != nil {
			return Bundle{}, nil, fmt.Errorf("generate %s/%s: %w", e.group, e.name, err)
		}
		made = append(made, names...)
	}
	if err := b.Validate(); err != nil {
		return Bundle{}, nil, fmt.Errorf("generate: %w", err)
	}
	return b, made, nil
}

func copyFiles(files map[string]map[string]Secret) map[string]map[string]Secret {
	out := make(map[string]map[string]Secret, len(files))
	for group, list := range files {
		out[group] = make(map[string]Secret, len(list))
		for name, content := range list {
			out[group][name] = content
		}
	}
	return out
}

// complete adds the entry's missing files and returns their names.
func (e entry) complete(files map[string]map[string]Secret, now time.Time) ([]string, error) {
	var made []string
	put := func(p path, content Secret) {
		if files[p.group] == nil {
			files[p.group] = make(map[string]Secret)
		}
		files[p.group][p.name] = content
		made = append(made, p.group+"/"+p.name)
	}
	key := path{e.group, e.kind.secret(e)}
	fresh := files[key.group][key.name].IsZero()
	if fresh {
		content, err := e.kind.maker.secret(e, now)
		if err != nil {
			return nil, err
		}
		put(key, NewSecret(content))
	}
	all := e.kind.public(e)
	if len(all) == 0 {
		return made, nil
	}
	inUse := files[all[0].group][all[0].name]
	if fresh = fresh || inUse.IsZero(); fresh {
		content, err := e.kind.maker.public(e, files[key.group][key.name].Reveal(), now)
		if err != nil {
			return nil, err
		}
		inUse = NewSecret(content)
	}
	for _, p := range all {
		if fresh || files[p.group][p.name].IsZero() {
			put(p, inUse)
		}
	}
	return made, nil
}

// randomText draws n letters and digits, each with the same chance.
func randomText(n int) string {
	const fair = 256 - 256%len(passwordLetters) // bytes from here on would favour the first letters
	out := make([]byte, 0, n)
	var buf [64]byte
	for len(out) < n {
		_, _ = rand.Read(buf[:]) // never fails (crypto/rand)
		for _, c := range buf {
			if int(c) < fair && len(out) < n {
				out = append(out, passwordLetters[int(c)%len(passwordLetters)])
			}
		}
	}
	return string(out)
}

// pkcs8 is the PEM file that nginx, HAProxy, Postfix, Dovecot and DKIM signers all read.
func pkcs8(key any) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encode key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// parsePKCS8 reads what pkcs8 wrote.
func parsePKCS8(text string) (any, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errPrivateUnreadable
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errPrivateUnreadable
	}
	return key, nil
}

type tlsMaker struct{}

func (tlsMaker) secret(entry, time.Time) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	return pkcs8(key)
}

// public makes a self-signed certificate that is no authority: a client that is given it as its only trust anchor
// accepts this one server and nothing that somebody signs with its key.
func (tlsMaker) public(e entry, secret string, now time.Time) (string, error) {
	parsed, err := parsePKCS8(secret)
	if err != nil {
		return "", err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return "", errPrivateUnreadable
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	id := sha256.Sum256(spki)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return "", fmt.Errorf("draw serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName(e.names)},
		NotBefore:             now.Add(-backdate).UTC(),
		NotAfter:              now.AddDate(certificateYears, 0, 0).UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          id[:20], // RFC 7093, method 1
		AuthorityKeyId:        id[:20],
	}
	for _, name := range e.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", fmt.Errorf("make certificate: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}

// commonName is the first name that fits the field (X.520: 64 characters); clients look at the alternative names.
func commonName(names []string) string {
	for _, name := range names {
		if len(name) <= 64 {
			return name
		}
	}
	return "understudy"
}

type rsaMaker struct{}

func (rsaMaker) secret(e entry, _ time.Time) (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, e.size)
	if err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	return pkcs8(key)
}

// public gives the p= value of a DKIM record: base64 of the SubjectPublicKeyInfo, as every verifier reads it
// (RFC 6376 erratum 3017).
func (rsaMaker) public(_ entry, secret string, _ time.Time) (string, error) {
	parsed, err := parsePKCS8(secret)
	if err != nil {
		return "", err
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return "", errPrivateUnreadable
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(spki), nil
}

type passwordMaker struct{}

func (passwordMaker) secret(e entry, _ time.Time) (string, error) { return randomText(e.size), nil }

// public makes a bcrypt hash. The prefix $2y$ names the same algorithm as Go's $2a$ without the bug that other programs once had under that name.
func (passwordMaker) public(_ entry, secret string, _ time.Time) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.DefaultCost)
	if errors.Is(err, bcrypt.ErrPasswordTooLong) {
		return "", fmt.Errorf("bcrypt reads at most %d bytes of a password: shorten it, or leave hash out", maxHashed)
	} else if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return "{BLF-CRYPT}$2y$" + strings.TrimPrefix(string(hash), "$2a$"), nil
}

type randomMaker struct{}

func (randomMaker) secret(e entry, _ time.Time) (string, error) {
	raw := make([]byte, e.size)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	return hex.EncodeToString(raw), nil
}

// public is never asked: the kind derives nothing.
func (randomMaker) public(entry, string, time.Time) (string, error) { return "", nil }
