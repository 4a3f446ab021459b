package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"understudy/sidecar/admin"
)

func switchoverCommand() *cobra.Command {
	var w where
	var to string
	var wait, asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "switchover ROLE",
		Short: "Move a role's duty to another node, without losing a request",
		Long: `Switchover asks the node that has the duty of a role to hand it over: it refuses new connections, lets
what runs finish (10 s at most), and then the other node takes the address and starts what writes the data.
Clients notice a short delay at most. Nothing happens if no other node could take the duty.

The order is given when the command ends; with --wait it ends when the duty has moved. It ends with 0 when all
went well, 3 when the duty has not moved in time, 1 when the order was refused.` + whereHelp,
		Example: `  sudo understudy switchover lb                 # to whoever is best
  sudo understudy switchover mail --to mail2 --wait
  sudo understudy switchover --local demo lb --wait`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: w.complete(dutyNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := w.ask(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			moving, err := c.Switchover(cmd.Context(), admin.Move{Role: args[0], To: to})
			if err != nil {
				return err
			}
			report := func(moving admin.Moving) error {
				if asJSON {
					return printJSON(cmd.OutOrStdout(), moving)
				}
				return tellMoving(cmd.OutOrStdout(), moving, wait)
			}
			if !wait {
				return report(moving)
			}
			if !asJSON {
				if err := report(moving); err != nil {
					return err
				}
			}
			moved, err := waitMoved(cmd.Context(), &w, moving, timeout)
			var late *lateError
			if errors.As(err, &late) {
				fmt.Fprintln(cmd.ErrOrStderr(), "understudy:", late)
				return exitCode(3)
			}
			if err != nil {
				return err
			}
			return tellMoved(cmd.OutOrStdout(), moved, asJSON)
		},
	}
	w.flags(cmd)
	cmd.Flags().StringVar(&to, "to", "", "the node that is to have the duty (default: whoever is best)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the duty has moved")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long --wait waits")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, whose keys are a promise")
	_ = cmd.RegisterFlagCompletionFunc("to", w.complete(standbys))
	_ = cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
	return cmd
}

// tellMoving says what has been ordered, and where to look when nobody waits.
func tellMoving(out io.Writer, m admin.Moving, waits bool) error {
	text := fmt.Sprintf("%s has been asked to hand %s over", m.From, m.Role)
	if m.To != "" {
		text += " to " + m.To
	}
	if !waits {
		text += "; see: understudy status --watch"
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

// Moved is what `switchover --wait --json` prints. Its keys are a promise.
type Moved struct {
	Role  string         `json:"role"`
	From  string         `json:"from"`
	To    string         `json:"to"` // who has the duty now
	Epoch uint64         `json:"epoch"`
	Took  admin.Duration `json:"took"` // since the order, as seen by whoever gave it
}

// lateError says that a duty has not moved in time, and why as far as that is known.
type lateError struct {
	role, why string
	within    time.Duration
}

func (e *lateError) Error() string {
	return fmt.Sprintf("%s has not moved within %s: %s", e.role, admin.Words(e.within), e.why)
}

// waitMoved waits until somebody has an epoch above the one that was to be left.
func waitMoved(ctx context.Context, w *where, m admin.Moving, timeout time.Duration) (Moved, error) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	why := "nothing is known to be in its way"
	for {
		st, err := w.status(limited)
		switch {
		case err == nil:
			for _, r := range st.Roles {
				if r.Name == m.Role && r.Primary != "" && r.Primary != m.From && r.Epoch > m.Epoch {
					return Moved{m.Role, m.From, r.Primary, r.Epoch, admin.Duration(time.Since(began))}, nil
				}
			}
			why = whyNot(st, m.Role, why)
		case limited.Err() == nil:
			why = err.Error()
		}
		if pace(limited, movePace) == nil {
			continue
		}
		if ctx.Err() != nil {
			return Moved{}, context.Cause(ctx)
		}
		return Moved{}, &lateError{m.Role, why, timeout}
	}
}

// movePace is shorter than the others: a move takes a fraction of a second, and people want to know which.
const movePace = 20 * time.Millisecond

// whyNot is what is in the way of a role's move; if nothing says so, what it was before.
func whyNot(st admin.Status, role, before string) string {
	for _, b := range st.Blocked {
		if strings.HasSuffix(b.What, " of "+role) { // "move of lb", "takeover of lb"
			return b.Why
		}
	}
	return before
}

func tellMoved(out io.Writer, m Moved, asJSON bool) error {
	if asJSON {
		return printJSON(out, m)
	}
	_, err := fmt.Fprintf(out, "%s has moved from %s to %s in %s\n", m.Role, m.From, m.To, admin.Words(time.Duration(m.Took)))
	return err
}

// dutyNames offers the roles that have a duty.
func dutyNames(st admin.Status, have []string) []string {
	var out []string
	for _, r := range st.Roles {
		if r.Duty && len(have) == 0 {
			out = append(out, r.Name+"\ton "+r.Primary)
		}
	}
	return out
}

// standbys offers the nodes that could take the duty of the role that is named already.
func standbys(st admin.Status, have []string) []string {
	var out []string
	for _, n := range st.Nodes {
		if len(have) > 0 && n.Role == have[0] && n.Duty == "standby" {
			out = append(out, n.Name+"\t"+n.Phase)
		}
	}
	return out
}
