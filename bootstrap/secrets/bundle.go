package secrets

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// BundleVersion is the only layout this program reads and writes.
const BundleVersion = 1

// MaxBundle bounds a bundle's plain text, in bytes: files of a cluster's size fit a hundred times over.
const MaxBundle = 4 << 20

// GroupCommon is the group whose files every node gets.
const GroupCommon = "common"

// minWebhook is the least length of the webhook's secret, in bytes: people choose it, too, and nobody can try it offline.
const minWebhook = 16

// minClusterKey is the least length of the cluster key's text, in bytes: 128 bits as hex.
const minClusterKey = 32

// Bundle is all that the cluster keeps secret; sealed, it is the control repo's secrets.age.
type Bundle struct {
	// Version is BundleVersion.
	Version int
	// ClusterKey is the root of what members prove to each other (tickets, beats). It is used as text, never directly:
	// every use derives a key of its own. Never empty.
	ClusterKey Secret
	// Provider holds an API token per provider name, as in roles.yaml.
	Provider map[string]Secret
	// TSIG holds DNS update keys by key name, without a final dot.
	TSIG map[string]TSIGKey
	// Restic is the password of the checkpoint repositories. Empty: no checkpoints.
	Restic Secret
	// Ledger is the access to the object store. Zero: no ledger.
	Ledger LedgerKeys
	// Webhook is what a git server proves its calls with. Empty: no webhook is served. Else at least 16 bytes.
	Webhook Secret
	// Files are what Puppet needs, by group (a role's name, or GroupCommon) and file name. A file may hold any bytes.
	Files map[string]map[string]Secret
}

// TSIGKey signs DNS updates (RFC 8945).
type TSIGKey struct {
	// Algorithm is hmac-sha224, -sha256, -sha384 or -sha512.
	Algorithm string
	// Secret is the key in base64, as name servers write it.
	Secret Secret
}

// LedgerKeys open the object store. Both are set or neither.
type LedgerKeys struct {
	AccessKey Secret
	SecretKey Secret
}

var (
	groupPattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	filePattern     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}$`)
	keyNamePattern  = regexp.MustCompile(`^[a-z0-9_][a-z0-9._-]{0,254}$`)
	tsigAlgorithms  = []string{"hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"}
	groupRule       = "a group's name is a role's name or " + GroupCommon + ": lower-case letters, digits, - and _, at most 63"
	fileRule        = "a file's name is letters, digits and ._@+-, not starting with . or -, at most 128"
	keyNameRule     = "a name here is lower-case letters, digits and ._-, at most 255"
	webhookShort    = fmt.Sprintf("must be at least %d random characters", minWebhook)
	clusterKeyShort = fmt.Sprintf("must be at least %d random characters", minClusterKey)
)

// ParseBundle reads a bundle's YAML. It is strict; the error joins every *Problem, with its position and without any
// of the content. name stands for the file in the problems.
func ParseBundle(name string, data []byte) (Bundle, error) {
	d := &document{file: name}
	b := Bundle{}
	root := d.root(data, MaxBundle)
	if root == nil {
		return Bundle{}, d.err()
	}
	d.fields(root, "the bundle", map[string]func(*yaml.Node){
		"version":     func(n *yaml.Node) { b.Version = d.version(n) },
		"cluster_key": func(n *yaml.Node) { b.ClusterKey = d.clusterKey(n) },
		"provider":    func(n *yaml.Node) { b.Provider = d.provider(n) },
		"tsig":        func(n *yaml.Node) { b.TSIG = d.tsig(n) },
		"restic":      func(n *yaml.Node) { b.Restic = NewSecret(d.text(n, "restic")) },
		"ledger":      func(n *yaml.Node) { b.Ledger = d.ledger(n) },
		"webhook":     func(n *yaml.Node) { b.Webhook = d.webhook(n) },
		"files":       func(n *yaml.Node) { b.Files = d.files(n) },
	})
	if root.Kind == yaml.MappingNode {
		d.required(root, "version", "cluster_key")
	}
	if err := d.err(); err != nil {
		return Bundle{}, err
	}
	return b, nil
}

func (d *document) required(n *yaml.Node, keys ...string) {
	for _, want := range keys {
		found := false
		for i := 0; i+1 < len(n.Content); i += 2 {
			found = found || n.Content[i].Value == want
		}
		if !found {
			d.problem(n, "%s is missing", want)
		}
	}
}

func (d *document) version(n *yaml.Node) int {
	v, err := strconv.Atoi(n.Value)
	if err == nil && v > BundleVersion {
		d.problem(n, "version is newer than this program, which reads %d: upgrade it", BundleVersion)
		return 0
	}
	if err != nil || v != BundleVersion || n.ShortTag() != "!!int" {
		d.problem(n, "version must be %d", BundleVersion)
	}
	return v
}

func (d *document) clusterKey(n *yaml.Node) Secret {
	key := d.text(n, "cluster_key")
	if key != "" && len(key) < minClusterKey {
		d.problem(n, "cluster_key %s", clusterKeyShort)
	}
	return NewSecret(key)
}

func (d *document) webhook(n *yaml.Node) Secret {
	secret := d.text(n, "webhook")
	if secret != "" && len(secret) < minWebhook {
		d.problem(n, "webhook %s", webhookShort)
	}
	return NewSecret(secret)
}

func (d *document) provider(n *yaml.Node) map[string]Secret {
	m := map[string]Secret{}
	d.mapping(n, "provider", func(key, value *yaml.Node) {
		if !keyNamePattern.MatchString(key.Value) {
			d.problem(key, "provider: %s", keyNameRule)
			return
		}
		m[key.Value] = NewSecret(d.text(value, "a provider's token"))
	})
	return m
}

func (d *document) tsig(n *yaml.Node) map[string]TSIGKey {
	m := map[string]TSIGKey{}
	d.mapping(n, "tsig", func(key, value *yaml.Node) {
		if !keyNamePattern.MatchString(key.Value) {
			d.problem(key, "tsig: %s", keyNameRule)
			return
		}
		k := TSIGKey{}
		d.fields(value, "a tsig key", map[string]func(*yaml.Node){
			"algorithm": func(n *yaml.Node) {
				if k.Algorithm = d.text(n, "algorithm"); !slices.Contains(tsigAlgorithms, k.Algorithm) {
					d.problem(n, "algorithm must be one of %s", strings.Join(tsigAlgorithms, ", "))
				}
			},
			"secret": func(n *yaml.Node) {
				k.Secret = NewSecret(d.text(n, "secret"))
				if !isBase64(k.Secret) {
					d.problem(n, "secret of a tsig key must be base64")
				}
			},
		})
		if value.Kind == yaml.MappingNode {
			d.required(value, "algorithm", "secret")
		}
		m[key.Value] = k
	})
	return m
}

func isBase64(s Secret) bool {
	_, err := base64.StdEncoding.DecodeString(s.Reveal())
	return err == nil
}

func (d *document) ledger(n *yaml.Node) LedgerKeys {
	k := LedgerKeys{}
	d.fields(n, "ledger", map[string]func(*yaml.Node){
		"access_key": func(n *yaml.Node) { k.AccessKey = NewSecret(d.text(n, "access_key")) },
		"secret_key": func(n *yaml.Node) { k.SecretKey = NewSecret(d.text(n, "secret_key")) },
	})
	if n.Kind == yaml.MappingNode {
		d.required(n, "access_key", "secret_key")
	}
	return k
}

func (d *document) files(n *yaml.Node) map[string]map[string]Secret {
	groups := map[string]map[string]Secret{}
	d.mapping(n, "files", func(group, list *yaml.Node) {
		if !groupPattern.MatchString(group.Value) {
			d.problem(group, "%s", groupRule)
			return
		}
		m := map[string]Secret{}
		d.mapping(list, "a group of files", func(name, content *yaml.Node) {
			if !filePattern.MatchString(name.Value) {
				d.problem(name, "%s", fileRule)
				return
			}
			m[name.Value] = NewSecret(d.text(content, "a file"))
		})
		groups[group.Value] = m
	})
	return groups
}

// Validate reports all that ParseBundle would refuse, for bundles made in memory.
func (b Bundle) Validate() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if b.Version != BundleVersion {
		refuse("version must be %d", BundleVersion)
	}
	if len(b.ClusterKey.Reveal()) < minClusterKey {
		refuse("cluster_key %s", clusterKeyShort)
	}
	for name, token := range sorted(b.Provider) {
		if !keyNamePattern.MatchString(name) || token.IsZero() {
			refuse("provider %q: needs a token, and %s", name, keyNameRule)
		}
	}
	for name, k := range sorted(b.TSIG) {
		if !keyNamePattern.MatchString(name) || !slices.Contains(tsigAlgorithms, k.Algorithm) || k.Secret.IsZero() || !isBase64(k.Secret) {
			refuse("tsig key %q: needs an algorithm of %s and a secret in base64, and %s", name, strings.Join(tsigAlgorithms, ", "), keyNameRule)
		}
	}
	if b.Ledger.AccessKey.IsZero() != b.Ledger.SecretKey.IsZero() {
		refuse("ledger needs both access_key and secret_key")
	}
	if !b.Webhook.IsZero() && len(b.Webhook.Reveal()) < minWebhook {
		refuse("webhook %s", webhookShort)
	}
	for group, files := range sorted(b.Files) {
		if !groupPattern.MatchString(group) {
			refuse("files: group %q: %s", group, groupRule)
		}
		for name, content := range sorted(files) {
			if !filePattern.MatchString(name) || content.IsZero() {
				refuse("files: %s/%q: must not be empty, and %s", group, name, fileRule)
			}
		}
	}
	return errors.Join(errs...)
}

// sorted iterates a map in the order of its keys.
func sorted[V any](m map[string]V) func(yield func(string, V) bool) {
	return func(yield func(string, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// Marshal writes the bundle as the YAML that ParseBundle reads, secrets in the clear: for Seal and for an operator's
// editor. Equal bundles give equal bytes.
func (b Bundle) Marshal() ([]byte, error) {
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	root := pairs{}
	root.add("version", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(b.Version)})
	root.add("cluster_key", scalar(b.ClusterKey))
	provider, tsig, ledger, files := pairs{}, pairs{}, pairs{}, pairs{}
	for name, token := range sorted(b.Provider) {
		provider.add(name, scalar(token))
	}
	for name, k := range sorted(b.TSIG) {
		key := pairs{}
		key.add("algorithm", scalar(NewSecret(k.Algorithm)))
		key.add("secret", scalar(k.Secret))
		tsig.add(name, key.node())
	}
	if !b.Ledger.AccessKey.IsZero() {
		ledger.add("access_key", scalar(b.Ledger.AccessKey))
		ledger.add("secret_key", scalar(b.Ledger.SecretKey))
	}
	for group, list := range sorted(b.Files) {
		m := pairs{}
		for name, content := range sorted(list) {
			m.add(name, scalar(content))
		}
		files.add(group, m.node())
	}
	root.addUnlessEmpty("provider", provider)
	root.addUnlessEmpty("tsig", tsig)
	if !b.Restic.IsZero() {
		root.add("restic", scalar(b.Restic))
	}
	root.addUnlessEmpty("ledger", ledger)
	if !b.Webhook.IsZero() {
		root.add("webhook", scalar(b.Webhook))
	}
	root.addUnlessEmpty("files", files)

	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(root.node()), enc.Close()); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return out.Bytes(), nil
}

// pairs builds a YAML mapping in a chosen order.
type pairs struct{ content []*yaml.Node }

func (p *pairs) add(key string, value *yaml.Node) {
	p.content = append(p.content, scalar(NewSecret(key)), value)
}

func (p *pairs) addUnlessEmpty(key string, value pairs) {
	if len(value.content) > 0 {
		p.add(key, value.node())
	}
}

func (p *pairs) node() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Content: p.content} }

// blockText is what survives YAML's literal style unchanged and reads well in it, as PEM files do.
var blockText = regexp.MustCompile(`^[!-~][ -~]*\n([ -~]*\n)*$`)

// plainText needs no quotes: no YAML type but string can look like it.
var plainText = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./-]*$`)

// scalar picks a style that brings back exactly the same bytes.
func scalar(s Secret) *yaml.Node {
	text := s.Reveal()
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: yaml.DoubleQuotedStyle}
	switch {
	case !utf8.ValidString(text):
		n.Tag, n.Value = "!!binary", base64.StdEncoding.EncodeToString([]byte(text))
	case blockText.MatchString(text) && !strings.HasSuffix(text, "\n\n"):
		n.Style = yaml.LiteralStyle
	case plainText.MatchString(text):
		n.Style = 0 // the encoder quotes words such as "true", because the tag says that this is text
	}
	return n
}
