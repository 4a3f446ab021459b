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

// syncOptions are the flags of sync.
type syncOptions struct {
	where   where
	wait    bool
	timeout time.Duration
	allow   int
	asJSON  bool
}

func syncCommand() *cobra.Command {
	var o syncOptions
	cmd := &cobra.Command{
		Use:   "sync [ROLE]",
		Short: "Show how the data of roles are mirrored, or wait until the mirrors have everything",
		Long: `Sync asks the primary of every role with data, or of one, how far the copy on the role's other node is: what is missing
there, since when, which paths wait and why, and whether the mirroring has stopped because the source looks like one that was
lost. With --wait it is a barrier: it ends when everything that was written before the call is durable on the other node.

Where a comparison would delete too much of a mirror, it stops and says how many deletions somebody would have to allow.
Look at the source first; then --allow-deletions lets one comparison go on.

It ends with 0 when the mirrors have everything (with --wait: what was written before), 3 when not, 1 when nobody can tell.` + whereHelp,
		Example: `  sudo understudy sync
  sudo understudy sync --wait && sudo poweroff
  sudo understudy sync mail --local demo --wait --timeout 30s
  sudo understudy sync mail --allow-deletions 5120`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.where.complete(dutyNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			asked := admin.SyncFor{Allow: o.allow}
			if len(args) == 1 {
				asked.Role = args[0]
			}
			if o.allow < 0 || o.allow > 0 && asked.Role == "" {
				return errors.New("--allow-deletions takes a number above zero, and needs to know the role: understudy sync ROLE --allow-deletions N")
			}
			got, err := o.run(cmd.Context(), cmd.ErrOrStderr(), asked)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if o.asJSON {
				return errors.Join(printJSON(out, got), o.done(got))
			}
			if _, err := io.WriteString(out, show.Synced(got, lookAt(out))); err != nil {
				return err
			}
			return o.done(got)
		},
	}
	o.where.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.wait, "wait", false, "wait until everything that was written before is durable on the other node")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "with --wait: how long at most")
	f.IntVar(&o.allow, "allow-deletions", 0, "let one comparison delete so many entries of the role's mirror")
	f.BoolVar(&o.asJSON, "json", false, "print JSON, whose keys are a promise")
	for _, flag := range []string{"timeout", "allow-deletions"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
	return cmd
}

// run asks once, or until the barrier is passed.
func (o *syncOptions) run(ctx context.Context, progress io.Writer, asked admin.SyncFor) (admin.Synced, error) {
	c, _, err := o.where.ask(ctx)
	if err != nil {
		return admin.Synced{}, err
	}
	defer c.Close()
	end := time.Now().Add(o.timeout)
	for {
		if o.wait {
			asked.Wait = admin.Duration(min(admin.MaxSyncWait, max(time.Until(end), time.Second)))
		}
		got, err := c.Sync(ctx, asked)
		if err != nil || !o.wait || o.done(got) == nil || time.Until(end) <= 0 {
			return got, err
		}
		asked.Allow = 0 // once is enough
		for _, r := range got.Roles {
			if !r.Durable {
				fmt.Fprintf(progress, "waiting for the mirror of %s\n", r.Role)
			}
		}
		if err := pause(ctx, time.Second); err != nil {
			return got, err
		}
	}
}

// done is the exit status.
func (o *syncOptions) done(got admin.Synced) error {
	for _, r := range got.Roles {
		if r.Error != "" || o.wait && !r.Durable || !o.wait && !r.CaughtUp {
			return notRedundant
		}
	}
	return nil
}
