package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"understudy/sidecar/admin"
	"understudy/sidecar/admin/show"
)

// applyOptions are the flags of apply.
type applyOptions struct {
	where   where
	wait    bool
	timeout time.Duration
	without bool
	confirm bool
	yes     bool
	asJSON  bool
}

func applyCommand() *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Look for a newer commit of the control repo at once, and follow it to every node",
		Long: `Apply makes the cluster look at the control repo now; by itself it does so every few seconds. What it finds is applied as
after any push: signed commits only, and only such as descend from the one before; within a role one node at a time, with the
leave of all others and while none is missing, the primary last. A node that a commit breaks goes back by itself, and no other tries it.

A commit whose roles.yaml has fewer nodes waits, and nothing changes, until somebody says besides that those nodes shall go: with
--confirm-removal, which says which machines will be deleted, and asks; or in the push, by a line "Understudy-Remove: web3" at the end of
the message of a signed commit. Then each of them hands over what it does, lets its requests end and leaves; its machine is deleted
once no other node counts on it.

With --wait it follows the commit until every node has it, and says what it waits for.

It ends with 0 when every node has the newest commit (without --wait: when the order was given), 3 when not, 1 when nobody can tell.` + whereHelp,
		Example: `  sudo understudy apply
  sudo understudy apply --wait --timeout 10m
  sudo understudy apply --without-missing    # a node of a role is gone for good, and the others shall not wait for it
  sudo understudy apply --confirm-removal --wait`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			got, err := o.run(cmd.Context(), cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if o.asJSON {
				return errors.Join(printJSON(out, got), o.done(got))
			}
			if _, err := io.WriteString(out, show.Applying(got)); err != nil {
				return err
			}
			return o.done(got)
		},
	}
	o.where.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.wait, "wait", false, "wait until every node has the newest commit")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "with --wait: how long at most")
	f.BoolVar(&o.without, "without-missing", false, "let roles take the newest commit although nodes of them are missing")
	f.BoolVar(&o.confirm, "confirm-removal", false, "let the commit that waits for it remove nodes")
	f.BoolVar(&o.yes, "yes", false, "with --confirm-removal: do not ask")
	f.BoolVar(&o.asJSON, "json", false, "print JSON, whose keys are a promise")
	_ = cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
	return cmd
}

// restartsWithin is how long a sidecar may not answer because a commit makes it start anew.
const restartsWithin = 20 * time.Second

// settleFor is how long nothing newer must be found after the look that was asked for.
const settleFor = 6 * time.Second

// run gives the order, and follows what comes of it.
func (o *applyOptions) run(ctx context.Context, in io.Reader, progress io.Writer) (admin.Applying, error) {
	c, _, err := o.where.ask(ctx)
	if err != nil {
		return admin.Applying{}, err
	}
	defer c.Close()
	asked := admin.Apply{Without: o.without, Everywhere: o.without, Confirm: o.confirm}
	if o.confirm {
		plan, err := o.removal(ctx, c)
		if err != nil {
			return plan, err
		}
		if err := confirmRemoval(in, progress, plan.Removal, o.yes); err != nil {
			return plan, err
		}
		asked.Commit = plan.Removal.Commit // that one and no other
	}
	got, err := c.Apply(ctx, asked)
	if err != nil || !o.wait {
		return got, err
	}
	began, said := time.Now(), ""
	heard := began
	for {
		if err := pause(ctx, time.Second); err != nil {
			return got, err
		}
		st, err := c.Status(ctx)
		if err != nil && time.Since(heard) < restartsWithin {
			continue
		}
		if err != nil {
			return got, err
		}
		heard = time.Now()
		got.Rollout = st.Rollout
		if line := st.Rollout.Line(); line != said && line != "" {
			fmt.Fprintln(progress, line)
			said = line
		}
		took := time.Since(began)
		if o.done(got) == nil && took > settleFor || got.Rollout.Held != "" || got.Rollout.Refused != "" && took > settleFor || took > o.timeout {
			return got, nil
		}
	}
}

// seenWithin is how long a node may take to see a commit, after it was told to look. Tests have less patience.
var seenWithin = 15 * time.Second

// removal is what would be confirmed. The commit may be so new that the node has not seen it yet.
func (o *applyOptions) removal(ctx context.Context, c *admin.Client) (admin.Applying, error) {
	for began := time.Now(); ; {
		plan, err := c.Apply(ctx, admin.Apply{Confirm: true, Try: true})
		if no, ok := errors.AsType[*admin.Problem](err); !ok || no.Title != admin.NothingToConfirm || time.Since(began) > seenWithin {
			return plan, err
		}
		if _, err := c.Apply(ctx, admin.Apply{}); err != nil {
			return plan, err
		}
		if err := pause(ctx, time.Second); err != nil {
			return plan, err
		}
	}
}

// confirmRemoval says which machines will be deleted and returns nil if the person at the terminal wants that, or has said so.
func confirmRemoval(in io.Reader, out io.Writer, r *admin.Removal, yes bool) error {
	if r == nil {
		return errors.New("that node does not know --confirm-removal: its sidecar is older than this program")
	}
	if yes {
		return nil
	}
	return confirmed(in, out, fmt.Sprintf("Commit %.8s removes %s.", r.Commit, show.Removed(*r)), "nobody can be asked here: add --yes")
}

// done is the exit status.
func (o *applyOptions) done(got admin.Applying) error {
	r := got.Rollout
	if len(got.Missed) > 0 || o.wait && (r.At < r.Of || len(r.Trying) > 0 || r.Held != "" || r.Refused != "") {
		return notRedundant
	}
	return nil
}

func runsCommand() *cobra.Command {
	var w where
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "Show the newest runs of Puppet on a node",
		Long: `Runs shows what Puppet did on one node since its first boot: which commit, what for (a push, the way back from a bad one, drift), how
many resources were changed or failed, how long it took, and why it failed where it did. Corrective changes are those of a commit
that the node had already: somebody or something else had changed it.` + whereHelp,
		Example: `  sudo understudy runs
  sudo understudy runs --local demo --node web2
  sudo understudy runs --json | jq '.runs[0].seconds'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := w.ask(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), askFor)
			defer cancel()
			got, err := c.Runs(ctx)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return printJSON(out, got)
			}
			_, err = io.WriteString(out, show.Runs(got, lookAt(out)))
			return err
		},
	}
	w.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, whose keys are a promise")
	return cmd
}
