package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"understudy/sidecar/cloud"
)

// self is what a machine knows of itself as its provider sees it.
type self struct {
	machine         string
	private, public netip.Addr
	anchor          netip.Addr
}

// metadataPatience is how long the metadata service is waited for at the start, less than the unit may take. It is started again
// after that.
const metadataPatience = 20 * time.Second

// identify asks the metadata service who we are, until it answers. Without one, the configuration must do.
func (n *node) identify(ctx context.Context) (self, error) {
	me := self{machine: n.cfg.MachineID}
	if n.cfg.Metadata == "" {
		if me.machine == "" {
			me.machine = machineID()
		}
		return me, nil
	}
	ctx, cancel := context.WithTimeout(ctx, metadataPatience)
	defer cancel()
	for told := false; ; told = true {
		m, err := cloud.ReadMetadata(ctx, n.cfg.Metadata)
		if err == nil {
			if me.machine == "" {
				me.machine = m.ID
			}
			me.private, me.public, me.anchor = m.Private, m.Public, m.Anchor
			return me, nil
		}
		if !told {
			n.log.Warn("waiting for the metadata service", "err", err)
		}
		select {
		case <-ctx.Done():
			return self{}, errors.Join(err, fmt.Errorf("learn which machine this is: %w", ctx.Err()))
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// here asks whether the provider leads a reserved address to this machine.
func (n *node) here(ctx context.Context, address netip.Addr) (bool, error) {
	m, err := cloud.ReadMetadata(ctx, n.cfg.Metadata)
	return err == nil && m.ReservedActive && m.Reserved == address, err
}

// machineID is this installation's own ID (machine-id(5)), for clusters without a provider. Empty: it has none.
func machineID() string {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return "" // a ledger will refuse the claim, and say so
	}
	return strings.TrimSpace(string(id))
}
