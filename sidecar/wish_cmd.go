package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"understudy/sidecar/admin"
)

func recoverCommand() *cobra.Command {
	var w where
	var machine string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "recover NODE",
		Short: "Keep a node's former machine that may have data which nobody else has",
		Long: `When the primary of a role with data is lost and its machine is switched off, the last moment of what was written
may be on that disk only. The machine is then kept for seven days, as status says, and deleted. Recover has it kept for as
long as you want, and tells how to get at the data. Nothing is copied by itself: what is newer there may contradict what was
written since.

It ends with 0 when the order is written down in the ledger, 1 when it is refused.` + whereHelp,
		Example: `  sudo understudy recover mail1
  sudo understudy recover mail1 --machine 3164494   # of several it had`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: w.complete(nodeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			got, err := wish(cmd.Context(), &w, admin.WishFor{Node: args[0], Machine: machine}, (*admin.Client).Recover)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), got)
			}
			return tellKept(cmd.OutOrStdout(), got)
		},
	}
	w.flags(cmd)
	cmd.Flags().StringVar(&machine, "machine", "", "the machine's ID, where it is not plain which one is meant")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, whose keys are a promise")
	_ = cmd.RegisterFlagCompletionFunc("machine", cobra.NoFileCompletions)
	return cmd
}

func discardCommand() *cobra.Command {
	var w where
	var machine string
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "discard NODE",
		Short: "Give up the data that only a lost or former machine of a node may have",
		Long: `Discard deletes a machine that is kept because it may have data of its role which no other machine has: one that
the node had before, or the one it has, if that is silent. The cluster waits for the newest data rather than go on with older
ones; discard ends that wait: the best copy that is left takes over, and whatever was only on the machine is gone for good.

It says which machine that is, and asks. Whoever coordinates switches it off first if it runs, by the same rules as in any
replacement. It ends with 0 when the order is written down in the ledger, 1 when it is refused.` + whereHelp,
		Example: `  sudo understudy discard mail1
  sudo understudy discard mail1 --machine 3164494 --yes`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: w.complete(nodeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			asked := admin.WishFor{Node: args[0], Machine: machine}
			if !yes {
				asked.Try = true
				plan, err := wish(cmd.Context(), &w, asked, (*admin.Client).Discard)
				if err != nil {
					return err
				}
				if err := confirmDiscard(cmd.InOrStdin(), cmd.ErrOrStderr(), plan); err != nil {
					return err
				}
				asked.Machine, asked.Try = plan.Machine, false // that one and no other
			}
			got, err := wish(cmd.Context(), &w, asked, (*admin.Client).Discard)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), got)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "machine %s, %s, will be deleted; see: understudy status --watch\n", got.Machine, whoseMachine(got))
			return err
		},
	}
	w.flags(cmd)
	cmd.Flags().StringVar(&machine, "machine", "", "the machine's ID, where it is not plain which one is meant")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, whose keys are a promise")
	_ = cmd.RegisterFlagCompletionFunc("machine", cobra.NoFileCompletions)
	return cmd
}

// wish gives an order about a machine at some node.
func wish(ctx context.Context, w *where, asked admin.WishFor, order func(*admin.Client, context.Context, admin.WishFor) (admin.Wished, error)) (admin.Wished, error) {
	c, _, err := w.ask(ctx)
	if err != nil {
		return admin.Wished{}, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	return order(c, ctx, asked)
}

// whoseMachine says what a machine is to its node.
func whoseMachine(w admin.Wished) string {
	if w.Silent {
		return "which " + w.Node + " has"
	}
	return "which was " + w.Node
}

// tellKept says how to get at the data, which nobody does by itself.
func tellKept(out io.Writer, w admin.Wished) error {
	_, err := fmt.Fprintf(out, `machine %[2]s, which was %[1]s, is kept until you discard it

To get at its data, switch it on at the provider. It is not %[1]s any more, so it takes no duty and no address; the cluster
leaves it alone. Log in there, copy what you miss to the role's primary, and then: understudy discard %[1]s --machine %[2]s
`, w.Node, w.Machine)
	return err
}

// confirmDiscard says what will be lost and returns nil if the person at the terminal wants that.
func confirmDiscard(in io.Reader, out io.Writer, plan admin.Wished) error {
	what := fmt.Sprintf("Machine %s, %s, will be deleted. What only it has is gone then.", plan.Machine, whoseMachine(plan))
	return confirmed(in, out, what, "nobody can be asked here: add --yes")
}

// confirmed says what is about to happen and returns nil if the person at the terminal wants that. Where there is none, nobody says what to do.
func confirmed(in io.Reader, out io.Writer, what, nobody string) error {
	if f, ok := in.(*os.File); ok && !isTerminal(f) {
		return errors.New(nobody)
	}
	if _, err := fmt.Fprintf(out, "%s Type yes: ", what); err != nil {
		return err
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}
