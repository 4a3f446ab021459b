package config

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse reads a file's content over Default; none at all changes nothing. name stands for the file in the messages. It
// returns every problem at once, each as name:line:column: key: what is wrong, in the order of the file.
func Parse(name string, data []byte) (Config, error) {
	c := Default()
	r := &reader{file: name, at: map[string]*yaml.Node{}}
	root := r.document(data)
	if root != nil {
		r.mapping("", root, c.fields(r))
	}
	for _, p := range c.problems() {
		r.add(r.place(p.key), p.key, "%s", p.msg)
	}
	if err := r.err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// fields says what becomes of each key.
func (c *Config) fields(r *reader) []field {
	return []field{
		{"node", r.text(&c.Node)},
		{"roster", r.text(&c.Roster)},
		{"secrets", r.text(&c.Secrets)},
		{"cluster_key_file", r.text(&c.ClusterKeyFile)},
		{"state", r.text(&c.State)},
		{"socket", r.text(&c.Socket)},
		{"listen", r.section(
			field{"beats", r.unlessNone(&c.Listen.Beats)}, field{"admin", r.unlessNone(&c.Listen.Admin)}, field{"join", r.unlessNone(&c.Listen.Join)},
			field{"data", r.unlessNone(&c.Listen.Data)},
			field{"names", r.unlessNone(&c.Listen.Names)}, field{"webhook", r.unlessNone(&c.Listen.Webhook)},
			field{"metrics", r.unlessNone(&c.Listen.Metrics)})},
		{"peers", func(key string, n *yaml.Node) { r.later(func() { c.Peers = r.peers(key, n, c.Listen.Beats) }) }},
		{"machine_id", r.text(&c.MachineID)},
		{"metadata", func(key string, n *yaml.Node) {
			r.unlessNone(&c.Metadata)(key, n)
			c.Metadata = strings.TrimRight(c.Metadata, "/")
		}},
		{"provider", r.section(field{"endpoint", func(key string, n *yaml.Node) {
			if r.text(&c.Provider.Endpoint)(key, n); c.Provider.Endpoint != "" {
				c.Provider.Endpoint = strings.TrimRight(c.Provider.Endpoint, "/") + "/"
			}
		}})},
		{"ledger", r.section(field{"endpoint", r.text(&c.Ledger.Endpoint)}, field{"bucket", r.text(&c.Ledger.Bucket)}, field{"region", r.text(&c.Ledger.Region)})},
		{"dns", r.section(field{"server", r.text(&c.DNS.Server)})},
		{"address_interface", r.text(&c.AddressInterface)},
		{"log_level", func(key string, n *yaml.Node) {
			levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
			var word string
			if r.text(&word)(key, n); word == "" {
				return // refused already
			}
			level, ok := levels[word]
			if !ok {
				r.add(n, key, "%q is none of debug, info, warn, error", word)
			}
			c.LogLevel = level
		}},
	}
}

// peers reads addresses with or without a port, which then is that of our own beats.
func (r *reader) peers(key string, n *yaml.Node, beats string) map[string]netip.AddrPort {
	all := map[string]netip.AddrPort{}
	_, port, err := net.SplitHostPort(beats)
	if err != nil {
		port = "1" // Beats itself is refused
	}
	for _, e := range r.entries(key, n) {
		var text string
		if r.text(&text)(e.key, e.value); text == "" {
			continue
		}
		at, err := netip.ParseAddrPort(text)
		if err != nil {
			at, err = netip.ParseAddrPort(net.JoinHostPort(text, port))
		}
		if err != nil {
			r.add(e.value, e.key, "%q is not ADDRESS or ADDRESS:PORT", text)
			continue
		}
		all[e.name] = at
	}
	return all
}
