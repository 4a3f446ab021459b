package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"understudy/sidecar/cloud/localcloud/site"
)

// localState is where local clouds keep what they need while they are up.
const localState = "/var/lib/understudy-local"

func localCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "local",
		Short: "Run the whole cluster on this machine",
		Long: `A local cloud is a DigitalOcean-compatible provider on this Linux machine: its droplets are
Debian nodes with their own systemd, in a network namespace of their own, and the same programs as on
the real one make a cluster of them. Nothing of this machine's network is changed; chosen ports are
forwarded to 127.0.0.1.`,
		Example: `  sudo understudy local up --forward 8080=www:80   # build the image if needed, boot the roster
  sudo understudy local status                     # what is where
  sudo understudy local exec web1 -- journalctl -u understudy-bootstrap
  sudo understudy local destroy web1               # as if the provider had lost it
  sudo understudy local down                       # leave nothing behind`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(localUp(), localDown(), localStatus(), localExec(), localDestroy(), localPartition(), localHeal(), localFault(),
		localServe(), localRunMachine())
	return cmd
}

// nameFlag adds --name, which tells local clouds on one machine apart.
func nameFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "name", "demo", "name of the local cloud; several can be up at once")
}

func client(name string) (site.Client, error) {
	if err := site.ValidName(name); err != nil {
		return site.Client{}, err
	}
	return site.Client{Name: name, Dir: stateDir(name)}, nil
}

func stateDir(name string) string { return filepath.Join(localState, name) }
