package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"understudy/sidecar/admin"
	"understudy/sidecar/admin/show"
)

func ledgerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "Show what the nodes remember of the ledger, and fill one that has lost it",
		Long: `The ledger is the object store in which the cluster has written down what the loss of its nodes must not take
along: which machine is which node, who holds a duty, which replacements are under way. Every node keeps the newest of it on
its disk. A ledger that knows less than that, because its bucket was emptied, restored from an old copy, or is another one,
counts as away: nothing is fenced, created or deleted by its word until somebody has said that this is well.`,
	}
	cmd.AddCommand(ledgerShowCommand(), ledgerReseedCommand())
	return cmd
}

func ledgerShowCommand() *cobra.Command {
	var w where
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show", Short: "Show what a node remembers of the ledger, and whether that is still there", Args: cobra.NoArgs,
		Long: `Show tells which claims, duties and replacements a node knows to have been in the ledger, and what of it the ledger
has lost. It ends with 0 when the ledger can be used, 3 when not.` + whereHelp,
		Example: `  sudo understudy ledger show`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := w.ask(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), askFor)
			defer cancel()
			r, err := c.Remembered(ctx)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				err = printJSON(out, r)
			} else {
				_, err = io.WriteString(out, show.Remembered(r, lookAt(out)))
			}
			if err == nil && !r.Ledger.Usable {
				err = exitCode(3)
			}
			return err
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, whose keys are a promise")
	return cmd
}

func ledgerReseedCommand() *cobra.Command {
	var w where
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use: "reseed", Short: "Fill a ledger that has lost records from what the living nodes remember", Args: cobra.NoArgs,
		Long: `Reseed collects the newest claims, duties and replacements that the living nodes know to have been in the ledger,
writes those that are missing as new objects, and then that this was done: from then on the cluster relies on the ledger again.
Nothing that is there is changed. Find out first why the ledger has lost them; if it is another bucket, or a copy will be
restored, mend that instead. It says what it will write and asks; it refuses where fewer than a majority of the roster answer, since
the others may remember more, and where nothing is missing.` + whereHelp,
		Example: `  sudo understudy ledger show
  sudo understudy ledger reseed`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := w.ask(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*askFor)
			defer cancel()
			if !yes {
				plan, err := c.Reseed(ctx, admin.Reseed{Try: true})
				if err != nil {
					return err
				}
				if err := confirmReseed(cmd.InOrStdin(), cmd.ErrOrStderr(), plan); err != nil {
					return err
				}
			}
			done, err := c.Reseed(cmd.Context(), admin.Reseed{})
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return printJSON(out, done)
			}
			_, err = io.WriteString(out, show.Reseeded(done, lookAt(out)))
			return err
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, whose keys are a promise")
	return cmd
}

// confirmReseed shows what would be written and returns nil if the person at the terminal wants that.
func confirmReseed(in io.Reader, out io.Writer, plan admin.Reseeded) error {
	what := strings.TrimRight(show.Reseeded(plan, lookAt(out)), "\n") + "\nWrite that?"
	return confirmed(in, out, what, "nobody can be asked here: look at understudy ledger show, then add --yes")
}
