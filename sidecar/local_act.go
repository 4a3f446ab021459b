package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"understudy/sidecar/cloud/localcloud/site"
)

func localDestroy() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:               "destroy NODE...",
		Short:             "Delete the machines of nodes, all at once and without warning",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeNodes(&name),
		RunE: func(cmd *cobra.Command, nodes []string) error {
			c, err := client(name)
			if err != nil {
				return err
			}
			if err := c.Destroy(cmd.Context(), nodes); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "destroyed %s\n", strings.Join(nodes, ", "))
			return nil
		},
	}
	nameFlag(cmd, &name)
	return cmd
}

func localPartition() *cobra.Command {
	var name string
	var oneWay bool
	cmd := &cobra.Command{
		Use:   "partition A B",
		Short: "Drop all traffic between two nodes",
		Long: `Partition drops every frame between two nodes; with --one-way only those that A sends to B.
Both still reach everybody else. understudy local heal takes all partitions back.`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeNodes(&name),
		RunE: func(cmd *cobra.Command, nodes []string) error {
			c, err := client(name)
			if err != nil {
				return err
			}
			return c.Partition(cmd.Context(), nodes[0], nodes[1], site.Direction(oneWay))
		},
	}
	nameFlag(cmd, &name)
	cmd.Flags().BoolVar(&oneWay, "one-way", false, "only what A sends to B is lost")
	return cmd
}

func localHeal() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "heal",
		Short: "Take all partitions back",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := client(name)
			if err != nil {
				return err
			}
			return c.Heal(cmd.Context())
		},
	}
	nameFlag(cmd, &name)
	return cmd
}

// completeNodes offers the nodes of a running cloud to the shell.
func completeNodes(name *string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, have []string, _ string) ([]string, cobra.ShellCompDirective) {
		st, err := site.Client{Name: *name, Dir: stateDir(*name)}.Status(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, n := range st.Nodes {
			names = append(names, n.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// findNode picks a running node out of a cloud's status.
func findNode(st site.Status, node string) (site.Node, error) {
	for _, n := range st.Nodes {
		if n.Name != node {
			continue
		}
		if n.Leader == 0 {
			return n, fmt.Errorf("%s is off", node)
		}
		return n, nil
	}
	var names []string
	for _, n := range st.Nodes {
		names = append(names, n.Name)
	}
	return site.Node{}, errors.New("no node is called " + node + "; there are " + strings.Join(names, ", "))
}
