//go:build linux

package node

import (
	"strings"
	"testing"
)

const metadataUnit = "understudy-metadata.service"

// refuses says whether the rule rejected a user's connection to the metadata service: this network has none, so only the rule's
// counter can tell.
func refuses(t *testing.T, m *machine, user string) bool {
	t.Helper()
	before := rejected(t, m)
	if out, err := m.run(t.Context(), nil, "runuser", "-u", user, "--", "curl", "-sS", "--max-time", "1", "http://169.254.169.254/metadata/v1.json"); err == nil {
		t.Fatalf("something answers %s: %s", user, out)
	}
	return rejected(t, m) != before
}

// rejected is how many packets the rule has counted.
func rejected(t *testing.T, m *machine) string {
	t.Helper()
	_, rest, ok := strings.Cut(m.must(t, "nft", "list", "table", "inet", "understudy-metadata"), "counter packets ")
	if !ok {
		t.Fatal("the table has no rule with a counter")
	}
	return strings.Fields(rest)[0]
}

// TestOnlyRootMayAskForTheMetadata looks at a machine that has booted and on which no sidecar has run.
func TestOnlyRootMayAskForTheMetadata(t *testing.T) {
	m := boot(t)
	closed := func() {
		t.Helper()
		if !refuses(t, m, "nobody") {
			t.Error("an ordinary user is not refused")
		}
		if refuses(t, m, "root") {
			t.Error("root is refused")
		}
	}
	closed()
	for _, unit := range []string{"sysinit.target", "network-pre.target"} {
		if got := m.show(t, metadataUnit, "Before"); !strings.Contains(got, unit) {
			t.Errorf("the rule is not ordered before %s: %s", unit, got)
		}
	}
	m.must(t, "nft", "flush", "ruleset")
	for range 2 { // the second time over what is there
		m.must(t, "systemctl", "restart", metadataUnit)
		closed()
	}
}
