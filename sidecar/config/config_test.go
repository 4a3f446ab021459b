package config

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"understudy/bootstrap/role"
)

func TestNoFileAndAnEmptyOneMeanTheDefaults(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("the defaults: got %v", err)
	}
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "{}\n", "~\n"} {
		c, err := Parse("sidecar.yaml", []byte(text))
		if err != nil || !reflect.DeepEqual(c, Default()) {
			t.Errorf("%q: got %+v, %v; want the defaults", text, c, err)
		}
	}
	c, err := Load(filepath.Join(t.TempDir(), "none"))
	if err != nil || c.Node == "" {
		t.Errorf("no file: got %+v, %v; want the hostname as the node", c, err)
	}
}

func TestFileChangesTheDefaults(t *testing.T) {
	c, err := Parse("sidecar.yaml", []byte(`
peers: {web2: 10.0.0.2, lb1: "[fd00::1]:7", lb2: "fd00::2"}
node: web1
roster: /srv/roles.yaml
secrets: /srv/secrets.age
cluster_key_file: /srv/key
state: /srv/state
socket: /srv/state/sock
listen: {beats: "10.0.0.1:7000", admin: none, join: ":7", data: ":8", names: "127.0.0.1:53", webhook: ":9", metrics: "[::1]:9100"}
machine_id: 12345
metadata: none
provider: {endpoint: http://10.77.0.1:8000}
ledger: {endpoint: "http://10.77.0.1:9000", bucket: blog-understudy, region: eu}
dns: {server: "ns.blog.internal:53"}
address_interface: eth0
log_level: debug
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Node: "web1", Roster: "/srv/roles.yaml", Secrets: "/srv/secrets.age", ClusterKeyFile: "/srv/key", State: "/srv/state", Socket: "/srv/state/sock",
		Listen: Listen{Beats: "10.0.0.1:7000", Join: ":7", Data: ":8", Names: "127.0.0.1:53", Webhook: ":9", Metrics: "[::1]:9100"},
		Peers: map[string]netip.AddrPort{
			"web2": netip.MustParseAddrPort("10.0.0.2:7000"), "lb1": netip.MustParseAddrPort("[fd00::1]:7"), "lb2": netip.MustParseAddrPort("[fd00::2]:7000"),
		},
		MachineID: "12345", Provider: Provider{"http://10.77.0.1:8000/"},
		Ledger: Ledger{"http://10.77.0.1:9000", "blog-understudy", "eu"},
		DNS:    DNS{"ns.blog.internal:53"}, AddressInterface: "eth0", LogLevel: slog.LevelDebug,
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestEveryProblemIsReportedWithItsLine(t *testing.T) {
	_, err := Parse("sidecar.yaml", []byte(`node: Web_1
noode: web1
state: var/lib
socket: ""
listen:
  beats: none
  admin: 127.0.0.1:53
  names: 127.0.0.1:53
  metrics: ":9100"
  data: ":7748"
  webhook: ":7748"
peers:
  web2: nowhere
  web3: 0.0.0.0
metadata: [a]
metadata: none
ledger: {endpoint: http://s3.example, bucket: B}
log_level: loud
dns: {server: nowhere}
provider: {endpoint: &x "https://u:p@api.example/"}
address_interface: eth0/1
`))
	if err == nil {
		t.Fatal("got no error")
	}
	want := []string{
		"1:7: node: ", "2:8: noode: unknown key", "3:8: state: ", "4:9: socket: must not be empty", "6:10: listen.beats: must not be none",
		"8:10: listen.names: 127.0.0.1:53 is listen.admin already", "9:12: listen.metrics: :9100 is not on loopback",
		"10:9: listen.data: :7748 is listen.join already",
		"11:12: listen.webhook: :7748 is listen.data already",
		"13:9: peers.web2: ", "14:9: peers.web3: ", "15:11: metadata: must be text", "16:1: metadata: stands here twice",
		"17:20: ledger.endpoint: must be https", "17:47: ledger.bucket: ", "18:12: log_level: ", "19:15: dns.server: ",
		"20:22: anchors, aliases", "20:22: provider.endpoint: ", "21:20: address_interface: ",
	}
	lines := strings.Split(err.Error(), "\n")
	for i := range max(len(lines), len(want)) {
		switch {
		case i >= len(want):
			t.Errorf("line %d: got %q, want nothing more", i, lines[i])
		case i >= len(lines):
			t.Errorf("line %d: got nothing, want %q", i, want[i])
		case !strings.HasPrefix(lines[i], "sidecar.yaml:"+want[i]):
			t.Errorf("line %d: got %q, want %q", i, lines[i], want[i])
		}
	}
}

func TestNodeIsNoPeerOfItself(t *testing.T) {
	_, err := Parse("f", []byte("node: web1\npeers: {web1: 10.0.0.1}\n"))
	if err == nil || !strings.Contains(err.Error(), "f:2:15: peers.web1: is this node itself") {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsNoConfigurationIsRefused(t *testing.T) {
	for _, text := range []string{"- a\n", "a: [\n", "node: web1\n---\nnode: web2\n", "node: *x\n", "node: !!str web1\n", strings.Repeat("# x\n", maxBytes)} {
		if c, err := Parse("f", []byte(text)); err == nil || !reflect.DeepEqual(c, Config{}) {
			t.Errorf("%.20q: got %+v, %v; want an error alone", text, c, err)
		}
	}
}

func TestLedgerOfTheFileLiesOverThatOfTheRoster(t *testing.T) {
	of := &role.Ledger{Endpoint: "https://a.example", Bucket: "a", Region: "r"}
	for name, c := range map[string]struct {
		l    Ledger
		of   *role.Ledger
		want *role.Ledger
	}{
		"neither":     {Ledger{}, nil, nil},
		"half of one": {Ledger{Endpoint: "https://b.example"}, nil, nil},
		"roster only": {Ledger{}, of, of},
		"file only":   {Ledger{"https://b.example", "b", ""}, nil, &role.Ledger{Endpoint: "https://b.example", Bucket: "b"}},
		"both":        {Ledger{Endpoint: "https://b.example"}, of, &role.Ledger{Endpoint: "https://b.example", Bucket: "a", Region: "r"}},
	} {
		if got := c.l.Over(c.of); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
	if of.Endpoint != "https://a.example" {
		t.Error("the roster's own was changed")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHostnameFillsInTheNodeOfAFileWithoutOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sidecar.yaml")
	write(t, path, "log_level: warn\n")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want, _, _ := strings.Cut(strings.ToLower(host), ".")
	if c, err := Load(path); err != nil || c.Node != want || c.LogLevel != slog.LevelWarn {
		t.Errorf("got %+v, %v; want node %s", c, err, want)
	}
	if _, err := Load(t.TempDir()); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory: got %v, want an error", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("node: web1\nlisten: {beats: \":1\"}\npeers: {a: 10.0.0.1}\n")
	f.Add("ledger: {endpoint: https://a, bucket: abc}\n")
	f.Add("? [a]\n: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f", []byte(text))
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("what was parsed is not valid: %v", err)
		}
	})
}
