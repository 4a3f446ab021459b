package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"understudy/sidecar/admin"
	"understudy/sidecar/admin/show"
)

// notRedundant is the exit status of a cluster that cannot afford to lose a node, or of a wait that was in vain.
const notRedundant = exitCode(3)

func statusCommand() *cobra.Command {
	var w where
	var asJSON, live bool
	var wait string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether the cluster is redundant, and if not, why",
		Long: `Status answers, in this order: is the cluster redundant, so that any one node can go? If not, why not?
What is being done about it, and by whom? What should be done and cannot, and what is in the way? Then come the
roles, with who has the duty of each and its address, and the nodes, with how far each has come.

It is the word of one node, named in the last line; after a cut in the network another may see it differently. When
something is amiss that node asks the others what they do and what blocks them.

It ends with 0 when the cluster is redundant, 3 when it is not, 1 when nobody can tell.` + whereHelp,
		Example: `  sudo understudy status                                  # on a node
  sudo understudy status --watch                          # until Ctrl-C
  sudo understudy status --wait redundant --timeout 5m    # in scripts, after a change
  sudo understudy status --json | jq -r '.why[]'
  sudo understudy status --local demo --node web2         # as web2 sees it`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			switch {
			case wait != "" && wait != "redundant":
				return fmt.Errorf("--wait %s: only redundant can be waited for", wait)
			case wait != "":
				return waitRedundant(cmd.Context(), &w, statusPrinter(out, asJSON), timeout)
			case live:
				return watchStatus(cmd.Context(), &w, newScreen(out, asJSON))
			}
			st, err := w.fullStatus(cmd.Context())
			if err != nil {
				return err
			}
			if err := statusPrinter(out, asJSON)(st); err != nil {
				return err
			}
			return redundance(st)
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, whose keys are a promise; with --watch a line for every change")
	cmd.Flags().BoolVar(&live, "watch", false, "go on showing it until interrupted")
	cmd.Flags().StringVar(&wait, "wait", "", "wait for a state, of which there is one: redundant")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long --wait waits")
	cmd.MarkFlagsMutuallyExclusive("watch", "wait")
	_ = cmd.RegisterFlagCompletionFunc("wait", cobra.FixedCompletions([]string{"redundant"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
	return cmd
}

// redundance is the exit status.
func redundance(st admin.Status) error {
	if st.Redundant {
		return nil
	}
	return notRedundant
}

func statusPrinter(out io.Writer, asJSON bool) func(admin.Status) error {
	if asJSON {
		return func(st admin.Status) error { return printJSON(out, st) }
	}
	return func(st admin.Status) error {
		_, err := io.WriteString(out, show.Status(st, lookAt(out)))
		return err
	}
}

func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// waitRedundant asks until the cluster is redundant, and prints what was seen last. A sidecar that does not answer is asked
// again: it may be the one that is being replaced.
func waitRedundant(ctx context.Context, w *where, print func(admin.Status) error, timeout time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var last *admin.Status
	var lost error
	for {
		st, err := w.status(limited)
		switch {
		case err == nil:
			last, lost = &st, nil
		case limited.Err() == nil:
			lost = err
		}
		if err == nil && st.Redundant {
			return print(st)
		}
		if err := pace(limited, waitPace); err == nil {
			continue
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case last == nil || lost != nil:
			return errors.Join(fmt.Errorf("nobody could tell within %s", admin.Words(timeout)), lost)
		}
		if err := print(*last); err != nil {
			return err
		}
		return notRedundant
	}
}

const (
	waitPace  = 250 * time.Millisecond
	watchPace = 500 * time.Millisecond
)

// status asks once.
func (w *where) status(ctx context.Context) (admin.Status, error) {
	c, st, err := w.ask(ctx)
	if err == nil {
		c.Close()
	}
	return st, err
}

// fullStatus asks once, and where something is amiss has all nodes asked for their part of it: who knows best why a takeover is
// blocked is the node that should take over.
func (w *where) fullStatus(ctx context.Context) (admin.Status, error) {
	c, st, err := w.ask(ctx)
	if err != nil {
		return st, err
	}
	defer c.Close()
	if st.Redundant && len(st.Blocked) == 0 {
		return st, nil
	}
	all, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if full, err := c.StatusOfAll(all); err == nil { // what one node knows is better than nothing
		st = full
	}
	return st, nil
}

// pace lets d go by, unless ctx ends before.
func pace(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
