//go:build linux

package site

import (
	"fmt"
	"net/netip"
)

// ledgerPort is where the cloud's object store answers, at the gateway address.
const ledgerPort = 9000

func ledgerURL() string { return "http://" + netip.AddrPortFrom(gateway, ledgerPort).String() }

// Sidecar is the sidecar.yaml of an image made for local clouds: roles.yaml names the provider and the ledger of the
// real cluster, and in here both are the cloud's own.
var Sidecar = fmt.Sprintf(`# This machine is in a local cloud: the provider and the ledger are the cloud's own.
provider: {endpoint: %q}
ledger: {endpoint: %q}
`, apiURL(), ledgerURL())
