package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"understudy/sidecar/admin"
	"understudy/sidecar/chaos"
)

// chaosOptions are the flags of chaos.
type chaosOptions struct {
	where          where
	seed           uint64
	node           string
	apart, timeout time.Duration
	wait           time.Duration
	dryRun, asJSON bool
}

func chaosCommand() *cobra.Command {
	var o chaosOptions
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Destroy a random node's machine, and see the cluster make good for it",
		Long: `Chaos picks a node, a role first and then one of its nodes, destroys its machine through the provider without
warning anybody, and follows the recovery until the cluster is redundant again. It ends with the incident's timeline.
Who has run this every day does not have to hope on the day when it happens by itself.

It refuses, and changes nothing, unless the cluster can afford the loss: redundant, nobody paused, no incident open. The
node that carries the order out checks all of it again, by fresh readings, and once more that the machine is the
node's, by ledger, name, tag and ID. A node that runs this command does not pick itself.

It ends with 0 when the cluster is redundant again (after --dry-run: when nothing speaks against it), 3 when it refuses,
1 when the cluster is not redundant in time, or nobody can tell.

On a node, understudy-chaos.timer does this once on every working day, at a random time from 9 to 16 h, and at least an
hour after the last time. It is off until somebody enables it, on one node or several (its comments say how).` + whereHelp,
		Example: `  sudo understudy chaos --dry-run                     # whom would it pick, and could that be?
  sudo understudy chaos --local demo
  sudo understudy chaos --local demo --seed 42        # the same pick again
  sudo understudy chaos --local demo --node web2      # no pick at all: web2 goes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("seed") && o.node == "" {
				o.seed = uint64(rand.Uint32()) // short enough to be typed again
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.where.reach(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be destroyed, or why nothing, and change nothing")
	f.Uint64Var(&o.seed, "seed", 0, "pick by this number: the same one among the same nodes picks the same (default: random)")
	f.StringVar(&o.node, "node", "", "destroy this node's machine instead of a picked one's")
	f.DurationVar(&o.apart, "apart", 0, "refuse if the last node was destroyed less long ago, from wherever that was ordered")
	f.DurationVar(&o.wait, "wait", 0, "ask again for so long while it refuses: just after a start, a node does not vote yet")
	f.DurationVar(&o.timeout, "timeout", 15*time.Minute, "how long the cluster may take until it is redundant again")
	f.BoolVar(&o.asJSON, "json", false, "print JSON at the end, whose keys are a promise")
	cmd.MarkFlagsMutuallyExclusive("seed", "node")
	_ = cmd.RegisterFlagCompletionFunc("node", o.where.complete(nodeNames))
	for _, flag := range []string{"seed", "apart", "wait", "timeout"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
	return cmd
}

// Chaos is what `chaos --json` prints. Its keys are a promise.
type Chaos struct {
	Seed    uint64 `json:"seed"` // zero also for a node that was named
	Node    string `json:"node"` // that was picked or named
	Role    string `json:"role"`
	Machine string `json:"machine_id"` // that it had
	DryRun  bool   `json:"dry_run"`
	// Refused is why nothing was destroyed. Empty: nothing spoke against it.
	Refused string `json:"refused"`
	// Redundant says how the cluster was left; Took is how long after the order it was redundant again, or was given up.
	Redundant bool           `json:"redundant"`
	Took      admin.Duration `json:"took"`
	// Why and Blocked are what keeps it from being redundant, as in a status.
	Why     []string        `json:"why"`
	Blocked []admin.Blocked `json:"blocked"`
	// Incident is the recovery's timeline, as far as it is written; null: nothing was destroyed.
	Incident *admin.Incident `json:"incident"`
}

func (o *chaosOptions) run(ctx context.Context, out, problems io.Writer) error {
	c, st, err := o.where.ask(ctx)
	if err != nil {
		return err
	}
	defer func() { c.Close() }()
	victim, err := o.pick(st)
	if err != nil {
		return err
	}
	if victim.Name == st.Node { // of a local cloud; there are others to ask
		c.Close()
		if c, st, err = o.where.askBut(ctx, victim.Name); err != nil {
			return err
		}
	}
	r := recovery{where: &o.where, out: out, Chaos: Chaos{
		Seed: o.seed, Node: victim.Name, Role: victim.Role, Machine: victim.Machine, DryRun: o.dryRun,
		Redundant: st.Redundant, Why: st.Why, Blocked: st.Blocked,
	}}
	if o.asJSON {
		r.out = io.Discard
	}
	fmt.Fprintf(r.out, "%s: %s (%s), machine %s\n", o.how(), victim.Name, victim.Role, victim.Machine)
	for end := time.Now().Add(o.wait); ; {
		if r.Refused, err = o.order(ctx, c, st, &r); err != nil {
			return err
		}
		if r.Refused == "" || time.Now().After(end) {
			break
		}
		fmt.Fprintf(r.out, "not yet: %s\n", r.Refused)
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
		c.Close()
		if c, st, err = o.where.askBut(ctx, victim.Name); err != nil {
			return err
		}
	}
	switch {
	case r.Refused != "":
		fmt.Fprintf(r.out, "refused, and nothing was changed: %s\n", r.Refused)
		err = notRedundant
	case o.dryRun:
		fmt.Fprintln(r.out, "nothing speaks against destroying it; nothing was changed")
	default:
		fmt.Fprintf(r.out, "destroyed; the cluster has %s to be redundant again\n", admin.Words(o.timeout))
		if err = r.follow(ctx, st, o.timeout); ctx.Err() == nil {
			r.tell(ctx, problems, o.timeout)
		}
	}
	if o.asJSON {
		err = errors.Join(printJSON(out, r.Chaos), err)
	}
	return err
}

// pause waits, or returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// how says by what the node was picked.
func (o *chaosOptions) how() string {
	if o.node != "" {
		return "chosen"
	}
	return fmt.Sprintf("picked with seed %d", o.seed)
}

// pick chooses the node. The one that is asked stays, unless there are others to ask when it is gone.
func (o *chaosOptions) pick(st admin.Status) (admin.Node, error) {
	spared := ""
	if o.where.local == "" {
		spared = st.Node
	}
	var all []chaos.Candidate
	var known []string
	for _, n := range st.Nodes {
		known = append(known, n.Name)
		if n.Name != spared {
			all = append(all, chaos.Candidate{Role: n.Role, Node: n.Name})
		}
	}
	name := o.node
	switch {
	case name != "" && name == spared:
		return admin.Node{}, fmt.Errorf("%s is the node that is asked, and what follows the recovery must outlive it: run this on another one", name)
	case name == "" && len(all) == 0:
		return admin.Node{}, errors.New("there is no node to pick")
	case name == "":
		name = chaos.Pick(o.seed, all).Node
	}
	i := slices.IndexFunc(st.Nodes, func(n admin.Node) bool { return n.Name == name })
	if i < 0 {
		return admin.Node{}, fmt.Errorf("no node is called %s; there are %s", name, strings.Join(known, ", "))
	}
	return st.Nodes[i], nil
}

// order has a sidecar destroy the machine, unless it is plain already that it would refuse.
func (o *chaosOptions) order(ctx context.Context, c *admin.Client, st admin.Status, r *recovery) (refused string, err error) {
	if !st.Redundant {
		return "the cluster is not redundant: " + strings.Join(st.Why, "; "), nil
	}
	if r.Machine == "" {
		return fmt.Sprintf("nobody knows which machine %s has", r.Node), nil
	}
	r.began = time.Now()
	done, err := c.Destroy(ctx, admin.Destroy{Node: r.Node, Machine: r.Machine, Seed: o.seed, Apart: admin.Duration(o.apart), DryRun: o.dryRun})
	var no *admin.Problem
	switch {
	case errors.As(err, &no) && no.Status == http.StatusConflict:
		return no.Detail, nil
	case errors.As(err, &no) && no.Status < http.StatusInternalServerError:
		return "", err
	case err != nil && !o.dryRun:
		return "", fmt.Errorf("%s may be destroyed or not, see understudy status: %w", r.Node, err)
	}
	r.incident = done.Incident
	return "", err
}
