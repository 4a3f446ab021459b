// Package config is /etc/understudy/sidecar.yaml: what one machine's sidecar needs to know that is not the cluster's
// business. Every key may be left out, and so may the file: on an ordinary node the defaults are right, and all that
// concerns the cluster comes from the control repo. The file is for networks of one's own, such as a local cloud, where
// the provider, the ledger or the name server are reached elsewhere than roles.yaml says.
//
// The package promises that a file with problems gives all of them at once, each with its line, and no Config. It
// refuses unknown and repeated keys, YAML's anchors, aliases and tags, and a second document. It holds no secret, only the
// places of files that do.
//
// # Keys
//
//	node               this node's name                       default: the hostname up to its first dot
//	roster             path of a roles.yaml                   default: that of the current release
//	secrets            path of a secrets.age                  default: that of the current release
//	cluster_key_file   path of the cluster key, for clusters  default: the key in secrets.age
//	                   that keep no other secret
//	state              directory                              default: /var/lib/understudy
//	socket             Unix socket of the admin API           default: /run/understudy/admin.sock
//	listen: beats      UDP, [ADDRESS]:PORT                    default: :7946
//	        admin      mutual TLS, or none                    default: :7747
//	        join       newcomers' joins (TLS), or none        default: :7748, the same on every node
//	        data       members' streams (TLS), or none        default: :7750, the same on every node
//	        names      DNS on loopback, or none               default: 127.0.0.55:5354
//	        webhook    a git server's pushes, plain HTTP      default: none; put TLS in front
//	        metrics    plain HTTP on loopback, or none        default: none (the admin API has them, too)
//	peers              {NODE: ADDRESS or ADDRESS:PORT}        default: found through ledger, provider and beats
//	machine_id         the provider's ID of this machine      default: asked of the metadata service
//	metadata           URL of the metadata service, or none   default: http://169.254.169.254/metadata/v1
//	provider: endpoint URL of the provider's API              default: the provider's own
//	ledger: endpoint, bucket, region                          default: those of roles.yaml
//	dns: server        HOST:PORT of every RFC 2136 server     default: those of roles.yaml
//	address_interface  where link addresses go                default: that of roles.yaml
//	log_level          debug, info, warn or error             default: info
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"understudy/bootstrap/role"
)

// Path is where the file lies on a node.
const Path = "/etc/understudy/sidecar.yaml"

// Config is a valid configuration, as Parse and Load return it. Empty strings stand for the defaults that are not known
// here: see the package comment.
type Config struct {
	// Node is this node's name in roles.yaml. Empty only in what Parse returns.
	Node string
	// Roster, Secrets and ClusterKeyFile are absolute paths, or empty.
	Roster, Secrets, ClusterKeyFile string
	// State is the directory of what must survive a restart, Socket the admin API's. Absolute paths.
	State, Socket string
	Listen        Listen
	// Peers are members' addresses for beats that are not to be looked up. The ports are above zero.
	Peers map[string]netip.AddrPort
	// MachineID is the provider's ID of this machine.
	MachineID string
	// Metadata is the base URL of the metadata service, without a final slash. Empty: there is none.
	Metadata string
	Provider Provider
	Ledger   Ledger
	DNS      DNS
	// AddressInterface is where addresses on the link go.
	AddressInterface string
	LogLevel         slog.Level
}

// Listen says where the sidecar listens: ":PORT" or "ADDRESS:PORT". Empty: not at all, which Beats must not be.
type Listen struct {
	Beats, Admin, Join, Data, Names, Webhook, Metrics string
}

// Provider changes where the provider is reached.
type Provider struct {
	Endpoint string // URL with a final slash
}

// Ledger changes where the ledger is reached.
type Ledger struct {
	Endpoint, Bucket, Region string
}

// Over is what roles.yaml says of the ledger, with what l says laid over it. It is nil when neither has an endpoint and a
// bucket: then the cluster has no ledger.
func (l Ledger) Over(of *role.Ledger) *role.Ledger {
	var r role.Ledger
	if of != nil {
		r = *of
	}
	for _, f := range []struct {
		to   *string
		from string
	}{{&r.Endpoint, l.Endpoint}, {&r.Bucket, l.Bucket}, {&r.Region, l.Region}} {
		if f.from != "" {
			*f.to = f.from
		}
	}
	if r.Endpoint == "" || r.Bucket == "" {
		return nil
	}
	return &r
}

// DNS changes where the names are published.
type DNS struct {
	Server string // host:port
}

// Default is the configuration of a node without a file. The names' address is not 127.0.0.54: systemd-resolved has that
// one for itself, and passes over it in silence where it is named as a server (systemd 257, dns_server_address_valid).
func Default() Config {
	return Config{
		State:    "/var/lib/understudy",
		Socket:   "/run/understudy/admin.sock",
		Listen:   Listen{Beats: ":7946", Admin: ":7747", Join: ":7748", Data: ":7750", Names: "127.0.0.55:5354"},
		Metadata: "http://169.254.169.254/metadata/v1",
		LogLevel: slog.LevelInfo,
	}
}

// Load reads the file at path; one that does not exist is an empty one. It fills Node from the hostname.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	c, err := Parse(path, data)
	if err != nil {
		return Config{}, err
	}
	if c.Node == "" {
		name, err := os.Hostname()
		if err != nil {
			return Config{}, fmt.Errorf("%s: node is not given: %w", path, err)
		}
		c.Node, _, _ = strings.Cut(strings.ToLower(name), ".")
		if !isLabel(c.Node) {
			return Config{}, fmt.Errorf("%s: node is not given, and the hostname %q is no node's name", path, name)
		}
	}
	return c, nil
}
