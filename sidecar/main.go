// Command understudy keeps a small cluster whole: on a node it is the sidecar, on the operator's
// machine the way to look and act, and on any Linux machine a local cloud to try it all in.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	if err == nil {
		return
	}
	var code exitCode
	if errors.As(err, &code) {
		os.Exit(int(code))
	}
	fmt.Fprintln(os.Stderr, "understudy:", err)
	os.Exit(1)
}

// exitCode ends the program with a status and without a further word: a program that was run on a
// node has said it all.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "understudy",
		Short: "Give every role in a small cluster an understudy",
		Long: `Understudy gives every role in a small cluster (load balancers, web, mail, package
repository, or whatever you add) a second machine that can take the part at once, and a way to hire
a new one.

On a node: understudy run is the sidecar, status shows what it sees, plan what it would do next.
From anywhere: the same commands with --local NAME or --connect HOST:PORT. On any Linux machine:
understudy local up boots the whole reference cluster to try it all in.

What is not there yet: pushes that remove nodes, checkpoints, the
beachhead.`,
		SilenceUsage: true, SilenceErrors: true,
		Version: version(),
	}
	cmd.AddCommand(runCommand(), localCommand(), imageCommand(), publishCommand(), hostToolsCommand())
	cmd.AddCommand(statusCommand(), planCommand(), incidentsCommand(), chaosCommand(), ledgerCommand(), recoverCommand(), discardCommand(), syncCommand(), applyCommand(), runsCommand(), switchoverCommand(), pauseCommand(), resumeCommand(), accessCommand(), secretsCommand(),
		launchCommand(), simulateCommand())
	return cmd
}
