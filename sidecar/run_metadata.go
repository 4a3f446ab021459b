package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"

	"understudy/bootstrap/command"
)

// The unit that keeps the metadata service for root, its table, and how often it is looked at.
const (
	metadataUnit  = "understudy-metadata.service"
	metadataTable = "understudy-metadata"
	metadataEvery = 5 * time.Second
)

// keepMetadata puts the rule that keeps the metadata service for root back when other software has flushed the rules (`nft flush
// ruleset` takes every table). The unit has the rule, and put it there before the network came up.
func (p *parts) keepMetadata(ctx context.Context) error {
	tick := time.NewTicker(metadataEvery)
	defer tick.Stop()
	trouble := ""
	for {
		err := p.closeMetadata(ctx)
		switch text := fmt.Sprint(err); {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			trouble = ""
		case text != trouble: // once, not every time it is found so
			p.log.Warn("every user of this machine may ask the metadata service", "err", err)
			trouble = text
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// closeMetadata restarts the unit if its table is not there.
func (p *parts) closeMetadata(ctx context.Context) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open a netlink socket for nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	if slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == metadataTable }) {
		return nil
	}
	r, err := command.Exec{}.Run(ctx, command.Cmd{
		Path: "/usr/bin/systemctl", Args: []string{"restart", metadataUnit}, Env: []string{"PATH=/usr/sbin:/usr/bin", "LANG=C.UTF-8"}, Timeout: 10 * time.Second,
	})
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("systemctl: exit code %d: %.200s", r.ExitCode, r.Stderr)
	}
	if err != nil {
		return fmt.Errorf("restart %s, whose table is not there: %w", metadataUnit, err)
	}
	p.log.Info("put the rule back that keeps the metadata service for root: other software had flushed it", "unit", metadataUnit)
	return nil
}
