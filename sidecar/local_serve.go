package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"understudy/sidecar/cloud/localcloud/nspawn"
	"understudy/sidecar/cloud/localcloud/site"
)

// localServe is the process behind a local cloud. `local up` starts it with the options on its
// standard input; its log is the state directory's cloud.log.
func localServe() *cobra.Command {
	return &cobra.Command{
		Use: "serve NAME", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var opt site.Options
			if err := json.NewDecoder(os.Stdin).Decode(&opt); err != nil {
				return fmt.Errorf("read the cloud's options: %w", err)
			}
			pid := []byte(strconv.Itoa(os.Getpid()) + "\n")
			if err := os.WriteFile(filepath.Join(opt.Dir, pidFile), pid, 0o600); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			err := site.Run(cmd.Context(), log, opt)
			if err != nil {
				log.Error("the local cloud ended", "err", err)
			}
			return err
		},
	}
}

// localRunMachine is the process that becomes one machine (see nspawn.Run).
func localRunMachine() *cobra.Command {
	return &cobra.Command{
		Use: nspawn.RunCommand[1], Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.Join(errors.New("machine does not start"), nspawn.Run(os.Stdin))
		},
	}
}
