package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"understudy/sidecar/admin/show"
)

func incidentsCommand() *cobra.Command {
	var w where
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "incidents",
		Short: "Show each loss of a node and how it was made good",
		Long: `Incidents shows every loss of a node that the ledger remembers, oldest first, with the phases of its
recovery and how long each took: lost, detected, taken over, fenced, created, booted, applied, synced, redundant.` + whereHelp,
		Example: `  sudo understudy incidents
  sudo understudy incidents --json | jq -r '.[] | [.node, .phases[-1].name] | @tsv'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := w.ask(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), askFor)
			defer cancel()
			all, err := c.Incidents(ctx)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return printJSON(out, all)
			}
			_, err = io.WriteString(out, show.Incidents(all, time.Now(), lookAt(out)))
			return err
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, whose keys are a promise")
	return cmd
}
