package secrets

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		writeForever(dir) // this process is a child of TestKillLeavesAWholeTree
	}
	goleak.VerifyTestMain(m)
}

// canary stands in for every secret in tests: no error, log or printed value may hold any part of it that matters.
const canary = "CANARY-d0ntprintme-0123456789abcdef"

// mustHide fails if what it is given, printed in any way, shows the canary.
func mustHide(t *testing.T, values ...any) {
	t.Helper()
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
			text := fmt.Sprintf(verb, v)
			for _, bad := range []string{canary, canary[:17], fmt.Sprintf("%x", canary[:17]), fmt.Sprintf("%X", canary[:17])} {
				if strings.Contains(text, bad) {
					t.Errorf("%s of %T shows the secret: %s", verb, v, text)
				}
			}
		}
	}
}

// must is for what cannot fail unless the test is wrong; the panic's trace names the line.
func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

// ok is must for what returns nothing else.
func ok(err error) {
	if err != nil {
		panic(err)
	}
}
