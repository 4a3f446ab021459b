package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"understudy/bootstrap/role"
	"understudy/sidecar/admin"
	"understudy/sidecar/cloud/localcloud/site"
)

func publishCommand() *cobra.Command {
	var local, repo string
	var wait, mirrored time.Duration
	cmd := &cobra.Command{
		Use:   "publish FILE",
		Short: "Hand a file, such as a Debian package, to the role that publishes files",
		Long: `Publish hands a file to the primary of the role that has a "publish" program in roles.yaml; in the
reference cluster that is the package repository, and the file a .deb. Publishing the same file again
changes nothing. It ends when the file lies, synced, on both of the role's nodes: with 3 when it does not in time; the node
that has it then mirrors it as soon as it can.

So far it reaches nodes of a local cloud (--local NAME). At a provider, use ssh: the program reads the
file on its standard input.`,
		Example: `  sudo understudy publish --local demo blog_1.0_all.deb`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if local == "" {
				return errors.New("say where: --local NAME")
			}
			if err := needRoot("publishing to a local cloud"); err != nil {
				return err
			}
			dir, err := findRepo(repo)
			if err != nil {
				return err
			}
			c, err := client(local)
			if err != nil {
				return err
			}
			if err := publishFile(cmd.Context(), c, dir, args[0], wait, cmd.OutOrStdout()); err != nil || mirrored == 0 {
				return err
			}
			return untilMirrored(cmd, local, dir, mirrored)
		},
	}
	cmd.Flags().StringVar(&local, "local", "", "name of the local cloud")
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait so long for the node to serve")
	cmd.Flags().DurationVar(&mirrored, "mirrored", 30*time.Second, "wait so long until the file lies on both of the role's nodes; 0s: do not")
	repoFlag(cmd, &repo)
	return cmd
}

// untilMirrored waits until the publishing role's mirror has everything, if the role has data.
func untilMirrored(cmd *cobra.Command, local, repo string, limit time.Duration) error {
	r, err := publisher(repo)
	if err != nil || len(r.Data) == 0 {
		return err
	}
	o := syncOptions{where: where{local: local}, wait: true, timeout: limit}
	got, err := o.run(cmd.Context(), io.Discard, admin.SyncFor{Role: r.Name})
	if err == nil {
		err = o.done(got)
	}
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "it lies on one machine only; look with: understudy sync %s --local %s\n", r.Name, local)
	}
	return err
}

// publishFile hands a file to the publishing role's primary in a local cloud, for which it waits up to wait. Should the
// duty move meanwhile, the new primary gets it, too.
func publishFile(ctx context.Context, c site.Client, repo, file string, wait time.Duration, out io.Writer) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	r, err := publisher(repo)
	if err != nil {
		return err
	}
	n, err := waitTaker(ctx, c, r, wait)
	for err == nil {
		var said bytes.Buffer
		if err := onNode(ctx, n, []string{r.Publish}, bytes.NewReader(data), &said, &said); err != nil {
			return fmt.Errorf("publish %s on %s: %v: %s", filepath.Base(file), n.Name, err, bytes.TrimSpace(said.Bytes())) // its exit status is not ours
		}
		var now site.Node
		if now, err = waitTaker(ctx, c, r, wait); err == nil && now.Machine == n.Machine {
			fmt.Fprintf(out, "published %s on %s\n", filepath.Base(file), n.Name)
			return nil
		}
		n = now
	}
	return err
}

// publisher finds the role that takes files.
func publisher(repo string) (role.Role, error) {
	path := filepath.Join(repo, "roles.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return role.Role{}, err
	}
	roster, err := role.Parse(path, data)
	if err != nil {
		return role.Role{}, err
	}
	for _, r := range roster.Roles {
		if r.Publish != "" {
			return r, nil
		}
	}
	return role.Role{}, fmt.Errorf("%s: no role has a publish program", path)
}

// waitTaker waits until a node of the role can take a file: its primary, or any that serves if it has none.
func waitTaker(ctx context.Context, c site.Client, r role.Role, limit time.Duration) (site.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, limit+time.Minute/6)
	defer cancel()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := c.Status(ctx)
		if ctx.Err() != nil {
			return site.Node{}, context.Cause(ctx)
		}
		if err != nil {
			return site.Node{}, err
		}
		at := slices.IndexFunc(st.Nodes, func(n site.Node) bool {
			return n.Role == r.Name && n.Leader != 0 && !n.Serving.IsZero() && (n.Duty == "primary" || !r.HasPrimary())
		})
		if at >= 0 {
			return st.Nodes[at], nil
		}
		if time.Now().After(deadline) {
			return site.Node{}, fmt.Errorf("no node of role %s can take a file yet; wait for it with --wait 2m", r.Name)
		}
		select {
		case <-ctx.Done():
			return site.Node{}, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
