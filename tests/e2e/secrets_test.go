//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"

	"understudy/bootstrap/secrets"
)

// needle is a secret as it would show: a line of it, since logs and JSON break or escape the ends of lines.
type needle struct{ name, text string }

// shortest is the least length of a line that is looked for: a shorter one is found where nobody has put it.
const shortest = 12

// needles are all secrets in v, found by their type, so that one that is added to the bundle tomorrow is looked for, too.
func needles(name string, v reflect.Value) []needle {
	var all []needle
	if s, ok := v.Interface().(secrets.Secret); ok {
		for line := range strings.Lines(s.Reveal()) {
			// What every key of a kind begins and ends with is no secret (RFC 7468, RFC 9580 6.2).
			if line = strings.TrimSpace(line); len(line) >= shortest && !strings.HasPrefix(line, "-----") {
				all = append(all, needle{name, line})
			}
		}
		return all
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			all = append(all, needles(name+"."+v.Type().Field(i).Name, v.Field(i))...)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			all = append(all, needles(fmt.Sprintf("%s[%s]", name, k), v.MapIndex(k))...)
		}
	case reflect.Slice:
		for i := range v.Len() {
			all = append(all, needles(fmt.Sprintf("%s[%d]", name, i), v.Index(i))...)
		}
	}
	return all
}

// found are the names of the secrets in a text, each once.
func found(text []byte, all []needle) []string {
	var names []string
	for _, n := range all {
		if bytes.Contains(text, []byte(n.text)) {
			names = append(names, n.name)
		}
	}
	return slices.Compact(names)
}

// root is a running node's file system, as the host sees it.
func (n node) root() string { return filepath.Join("/proc", strconv.Itoa(n.Leader), "root") }

// held are the files of a node in which its secrets lie on purpose.
var held = []string{"/var/lib/understudy/identity", "/run/understudy/secrets/"}

// secrets opens the bundle with the identity, both as a node has them.
func (c *cluster) secrets(t testing.TB, on node) []needle {
	t.Helper()
	identity, err := os.ReadFile(filepath.Join(on.root(), held[0]))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := age.ParseIdentities(bytes.NewReader(identity))
	if err != nil || len(ids) != 1 {
		t.Fatalf("%d identities, %v", len(ids), err)
	}
	id, ok := ids[0].(*age.X25519Identity)
	if !ok {
		t.Fatalf("the identity is a %T", ids[0])
	}
	sealed, err := filepath.Glob(filepath.Join(on.root(), "var/lib/understudy/releases/*/secrets.age"))
	if err != nil || len(sealed) == 0 {
		t.Fatalf("no sealed bundle: %v", err)
	}
	data, err := os.ReadFile(sealed[0])
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := secrets.Open(data, id)
	if err != nil {
		t.Fatal(err)
	}
	all := needles("Bundle", reflect.ValueOf(bundle))
	return append(all, needle{"the cluster's identity", id.String()})
}

// search reads everything that a cluster has said and kept, and returns where it has found which secrets, and how many bytes
// it has read.
func (c *cluster) search(t testing.TB, all []needle) (leaks []string, read int) {
	t.Helper()
	look := func(where string, text []byte) {
		read += len(text)
		for _, name := range found(text, all) {
			leaks = append(leaks, name+" stands in "+where)
		}
	}
	for _, command := range []string{"status", "plan", "incidents", "ledger show", "local status"} {
		for _, as := range []string{"", "--json"} {
			args := append(strings.Fields(command), "--local", c.name)
			if command == "local status" {
				args = []string{"local", "status", "--name", c.name}
			}
			if as != "" {
				args = append(args, as)
			}
			out, _ := try(t, args...) // its status tells of the cluster
			look("the output of understudy "+strings.Join(args, " "), []byte(out))
		}
	}
	state := filepath.Join("/var/lib/understudy-local", c.name)
	c.walk(t, state, filepath.Join(state, "objects"), look)
	log, err := os.ReadFile(filepath.Join(state, "cloud.log"))
	if err != nil {
		t.Error(err)
	}
	look("cloud.log", log)
	for _, n := range c.status(t).Nodes {
		if n.Leader == 0 {
			continue
		}
		for what, argv := range map[string][]string{
			"the journal":   {"journalctl", "--no-pager", "--output=export"},
			"the metrics":   {"curl", "-sS", "--unix-socket", "/run/understudy/admin.sock", "http://sidecar/metrics"},
			"the metadata":  {"curl", "-sS", "http://169.254.169.254/metadata/v1.json"},
			"the user_data": {"curl", "-sS", "http://169.254.169.254/metadata/v1/user-data"},
		} {
			out, code := c.run(t, n.Name, argv...)
			if code != 0 || out == "" {
				t.Errorf("%s of %s: status %d, %d bytes", what, n.Name, code, len(out))
			}
			look(what+" of "+n.Name, []byte(out))
		}
		for _, dir := range []string{"/var/lib/understudy", "/run/understudy"} {
			c.walk(t, n.root(), filepath.Join(n.root(), dir), func(where string, text []byte) { look(n.Name+":"+where, text) })
		}
	}
	return leaks, read
}

// walk looks at every file below dir but those that hold secrets on purpose. Files may go meanwhile.
func (c *cluster) walk(t testing.TB, root, dir string, look func(where string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		where := strings.TrimPrefix(path, root)
		onPurpose := slices.ContainsFunc(held, func(h string) bool { return where == h || strings.HasSuffix(h, "/") && strings.HasPrefix(where, h) })
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!d.Type().IsRegular() || onPurpose) {
			return nil
		}
		var text []byte
		if err == nil {
			text, err = os.ReadFile(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		look(where, text)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// known are lines that the cluster is known to have written, and where: a search that does not find them shows nothing.
var known = []struct{ where, text string }{
	{"the journal of ", "sidecar starts"}, {"/objects/", `"value":`}, {"/sidecar.json", `"version":`}, {"understudy status", "redundant"}, {"the user_data of", "understudy"},
}

// keepsItsSecrets fails if any secret of the cluster stands where it must not. It is run last, when all has been said.
func (c *cluster) keepsItsSecrets(t *testing.T) {
	nodes := slices.DeleteFunc(c.status(t).Nodes, func(n node) bool { return n.Leader == 0 })
	if len(nodes) == 0 {
		t.Fatal("no node runs")
	}
	all := c.secrets(t, nodes[0])
	names := map[string]bool{}
	for _, n := range all {
		names[n.name] = true
	}
	for _, k := range known {
		all = append(all, needle{k.text, k.text})
	}
	leaks, read := c.search(t, all)
	for _, k := range known {
		if !slices.ContainsFunc(leaks, func(l string) bool { return strings.HasPrefix(l, k.text+" stands in ") && strings.Contains(l, k.where) }) {
			t.Errorf("the search does not find %q in %s: it shows nothing", k.text, k.where)
		}
	}
	for _, l := range leaks {
		if name, _, _ := strings.Cut(l, " stands in "); names[name] {
			t.Error(l)
		}
	}
	t.Logf("looked for %d secrets (%d lines) in %d bytes", len(names), len(all)-len(known), read)
}

// TestEverySecretOfABundleIsLookedFor: the search is as good as its list.
func TestEverySecretOfABundleIsLookedFor(t *testing.T) {
	secret := func(s string) secrets.Secret { return secrets.NewSecret(s) }
	b := secrets.Bundle{
		ClusterKey: secret("cluster-key-0000"), Provider: map[string]secrets.Secret{"x": secret("provider-token-1")},
		TSIG:   map[string]secrets.TSIGKey{"k": {Algorithm: "hmac-sha256", Secret: secret("tsig-secret-0002")}},
		Restic: secret("restic-password3"), Ledger: secrets.LedgerKeys{AccessKey: secret("access-key-00004"), SecretKey: secret("secret-key-00005")},
		Files: map[string]map[string]secrets.Secret{"mail": {"tls": secret("-----BEGIN KEY-----\nfirst-line-00006\nshort\nsecond-line-0007\n-----END KEY-----\n")}},
	}
	got := needles("Bundle", reflect.ValueOf(b))
	if len(got) != 8 {
		t.Errorf("got %v, want 8 lines", got)
	}
	for _, n := range got {
		if leaks := found([]byte(`{"msg":"asked with `+n.text+`\n"}`), got); len(leaks) != 1 || leaks[0] != n.name {
			t.Errorf("%s in a log: found %v", n.name, leaks)
		}
	}
	if leaks := found(fmt.Appendf(nil, "%v %+v %#v", b, b, b), got); len(leaks) > 0 {
		t.Errorf("printing a bundle shows %v", leaks)
	}
}
