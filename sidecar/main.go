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

What exists so far: the local cloud, in which the reference cluster boots itself from one image
(understudy local up), the image (understudy image), and publishing packages to the cluster's own
repository (understudy publish). Nodes become what they are by understudy-bootstrap.`,
		SilenceUsage: true, SilenceErrors: true,
		Version: version(),
	}
	cmd.AddCommand(runCommand(), localCommand(), imageCommand(), publishCommand(), hostToolsCommand())
	cmd.AddCommand(statusCommand(), planCommand(), incidentsCommand(), switchoverCommand(), pauseCommand(), resumeCommand(), accessCommand())
	return cmd
}
