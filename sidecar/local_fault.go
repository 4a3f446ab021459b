package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"understudy/sidecar/cloud/localcloud/site"
)

func localFault() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "fault ledger away|silent|slow DURATION|ok",
		Short: "Make the ledger of a local cloud misbehave",
		Long: `Fault changes how the object store behind the ledger answers every node, until the next one:

  away           connections end without an answer, and nothing is done
  silent         the same, but what was asked for has been done
  slow DURATION  every request takes so much longer
  ok             nothing is wrong

While something is, understudy local status says so.`,
		Example: `  sudo understudy local fault ledger slow 500ms
  sudo understudy local fault ledger ok`,
		Args: cobra.RangeArgs(2, 3),
		ValidArgsFunction: func(_ *cobra.Command, have []string, _ string) ([]string, cobra.ShellCompDirective) {
			offers := [][]string{{"ledger"}, {"away", "silent", "slow", "ok"}}
			if len(have) < len(offers) {
				return offers[len(have)], cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "ledger" {
				return fmt.Errorf("fault %q: only the ledger can be made to misbehave", args[0])
			}
			f, err := site.ParseFault(args[1:])
			if err != nil {
				return err
			}
			if err := needRoot("changing a local cloud"); err != nil {
				return err
			}
			c, err := client(name)
			if err != nil {
				return err
			}
			if err := c.Fault(cmd.Context(), f); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "the ledger: %s\n", strings.Join(args[1:], " "))
			return nil
		},
	}
	nameFlag(cmd, &name)
	return cmd
}
