package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"understudy/sidecar/admin/show"
)

func planCommand() *cobra.Command {
	var w where
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what a node does now, why, and what is blocked by what",
		Long: `Plan shows a node's newest decision: each action with its reason and with what is read once more
right before it is done, then what should be done and cannot, and why. It comes from the same code that acts, so
on a paused node it shows what would be done.

Every node decides for itself: ask the node you wonder about.` + whereHelp,
		Example: `  sudo understudy plan
  sudo understudy plan --json | jq '.blocked'
  sudo understudy plan --local demo --node lb2`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := w.ask(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), askFor)
			defer cancel()
			plan, err := c.Plan(ctx)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return printJSON(out, plan)
			}
			_, err = io.WriteString(out, show.Plan(plan, lookAt(out)))
			return err
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, whose keys are a promise")
	return cmd
}
