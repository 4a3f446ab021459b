package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"understudy/sidecar/admin"
)

func pauseCommand() *cobra.Command {
	return pausing(&cobra.Command{
		Use:   "pause",
		Short: "Let every node observe and report, and do nothing",
		Long: `Pause makes all sidecars of the cluster observe only, for as long as you work on it by hand. What holds
goes on: primaries keep their addresses, services run. But nothing is taken over, moved, started or published, so
a node that is lost now is a role that is down. Status and plan go on saying what would be done.

A sidecar that is restarted acts again. It ends with 0 when every member obeyed, 3 when some could not be
reached, which are named: one that comes back later is not paused.` + whereHelp,
		Example: `  sudo understudy pause
  sudo understudy pause --only            # this node and no other
  sudo understudy plan                    # what it would do now
  sudo understudy resume`,
	}, "paused", (*admin.Client).Pause)
}

func resumeCommand() *cobra.Command {
	return pausing(&cobra.Command{
		Use:   "resume",
		Short: "Let every node act again after a pause",
		Long: `Resume ends a pause on all nodes of the cluster. It ends with 0 when every member obeyed, 3 when some
could not be reached, which are named.` + whereHelp,
		Example: `  sudo understudy resume`,
	}, "resumed", (*admin.Client).Resume)
}

// pausing adds what pause and resume share.
func pausing(cmd *cobra.Command, did string, order func(*admin.Client, context.Context, admin.Pause) (admin.Pausing, error)) *cobra.Command {
	var w where
	var only, asJSON bool
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, _, err := w.ask(cmd.Context())
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), askFor)
		defer cancel()
		got, err := order(c, ctx, admin.Pause{Everywhere: !only})
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		if asJSON {
			return errors.Join(printJSON(out, got), reached(got))
		}
		if err := tellPausing(out, cmd.ErrOrStderr(), got, did); err != nil {
			return err
		}
		return reached(got)
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&only, "only", false, "the node that is asked and no other")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, whose keys are a promise")
	return cmd
}

func tellPausing(out, errs io.Writer, got admin.Pausing, did string) error {
	if _, err := fmt.Fprintf(out, "%s: %s\n", did, got.Node); err != nil {
		return err
	}
	for _, o := range got.Others {
		to, text := out, fmt.Sprintf("%s: %s\n", did, o.Node)
		if o.Error != "" {
			to, text = errs, fmt.Sprintf("not reached: %s: %s\n", o.Node, o.Error)
		}
		if _, err := io.WriteString(to, text); err != nil {
			return err
		}
	}
	return nil
}

// reached is the exit status: 0 when every member obeyed.
func reached(got admin.Pausing) error {
	for _, o := range got.Others {
		if o.Error != "" {
			return exitCode(3)
		}
	}
	return nil
}
