package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"understudy/sidecar/cloud/localcloud/site"
)

func localStatus() *cobra.Command {
	var name string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show a local cloud and how far its nodes are",
		Long: `Status shows every node of the roster: its machine, what its bootstrap is doing or why it cannot
go on, and how long it took. It ends with 0 when all nodes serve and the cluster's addresses and names lead
to them, 3 when not, 1 when it cannot tell. What the cluster knows of itself: understudy status --local NAME.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot("looking at a local cloud"); err != nil {
				return err
			}
			c, err := client(name)
			if err != nil {
				return err
			}
			st, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(st)
			} else {
				err = printStatus(cmd.OutOrStdout(), st, time.Now())
			}
			if err == nil && !st.Serving {
				err = exitCode(3)
			}
			return err
		},
	}
	nameFlag(cmd, &name)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, whose keys are a promise")
	return cmd
}

func printStatus(w io.Writer, st site.Status, now time.Time) error {
	fmt.Fprintf(w, "local cloud %s: cluster %s, up %s\n", st.Name, st.Cluster, words(now.Sub(st.Started)))
	if st.LedgerFault != "" {
		fmt.Fprintf(w, "its ledger is made to misbehave: %s (understudy local fault ledger ok ends it)\n", st.LedgerFault)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tROLE\tMACHINE\tADDRESS\tSTATE\tTOOK\tCPU")
	for _, n := range st.Nodes {
		took := ""
		if !n.Serving.IsZero() {
			took = words(n.Serving.Sub(n.Created))
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%.1f s\n", n.Name, n.Role, n.Machine, n.Address, stateOf(n, now), took, n.CPU)
	}
	err := t.Flush()
	for _, f := range st.Forwards {
		fmt.Fprintf(w, "%s leads to %s\n", f.Listen, f.Target)
	}
	fmt.Fprintf(w, "API %s (inside; token in %s), control repo %s, operator's key in %s\n", st.API, st.TokenFile, st.Git, st.Operator)
	return err
}

// stateOf says in a few words what a node does.
func stateOf(n site.Node, now time.Time) string {
	switch {
	case n.Machine == 0:
		return "being created"
	case !n.Power:
		return "off"
	case !n.Serving.IsZero():
		return "serving"
	case n.Bootstrap == nil:
		return "booting, " + words(now.Sub(n.Created))
	case n.Bootstrap.Finished():
		return sidecarOf(n)
	}
	return n.Bootstrap.Line(now)
}

// sidecarOf says how far a node is whose bootstrap is done.
func sidecarOf(n site.Node) string {
	if n.Phase == "" {
		return "sidecar: not heard yet"
	}
	return "sidecar: " + n.Phase
}

// words rounds a duration to what people read: 850ms, 3.2s, 2m5s.
func words(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
