package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"github.com/spf13/cobra"

	"understudy/sidecar/cloud/localcloud/site"
)

func localExec() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "exec NODE -- COMMAND [ARGUMENT...]",
		Short: "Run a command on a node, as root",
		Long: `Exec runs a command inside a node and ends with its exit status. Standard input, output and
the terminal are passed on.`,
		Example: `  sudo understudy local exec web1 -- systemctl status nginx
  sudo understudy local exec mail1 -- bash`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeNodes(&name),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needRoot("running a command on a node"); err != nil {
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
			n, err := findNode(st, args[0])
			if err != nil {
				return err
			}
			return onNode(cmd.Context(), n, args[1:], os.Stdin, os.Stdout, os.Stderr)
		},
	}
	cmd.Flags().SetInterspersed(true)
	nameFlag(cmd, &name)
	return cmd
}

// onNode runs a command inside a node's namespaces. The node's environment is a login's, not ours.
func onNode(ctx context.Context, n site.Node, argv []string, in io.Reader, out, errs io.Writer) error {
	path, err := exec.LookPath("nsenter")
	if err != nil {
		return fmt.Errorf("%w: install the package util-linux", err)
	}
	args := append([]string{"--target", strconv.Itoa(n.Leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--"}, argv...)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root", "USER=root",
		"LOGNAME=root", "TERM=" + os.Getenv("TERM")}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errs
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exitCode(exit.ExitCode())
	}
	if err != nil {
		return fmt.Errorf("run %s on %s: %w", argv[0], n.Name, err)
	}
	return nil
}
