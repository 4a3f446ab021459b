package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"understudy/sidecar/admin"
)

func accessCommand() *cobra.Command {
	var w where
	var last time.Duration
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Make a certificate with which an operator may ask nodes over the network",
		Long: `Access prints, as one PEM file, a certificate with its private key and the cluster's authority, for
use with --connect on another machine. It opens the admin API of every node until it ends; nothing else ends it but new
secrets. It cannot pose as a node. Keep the file as you keep a password.

Only a node's own socket answers this, so it is run on a node, or with --local.` + whereHelp,
		Example: `  ssh root@lb1.blog.example understudy access --for 720h > blog.pem && chmod 600 blog.pem
  understudy status --connect lb1.blog.example:7747 --cert blog.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := w.ask(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), askFor)
			defer cancel()
			text, err := c.Access(ctx, admin.Access{For: admin.Duration(last)})
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	w.flags(cmd)
	cmd.Flags().DurationVar(&last, "for", 30*24*time.Hour, "how long it holds")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.NoFileCompletions)
	return cmd
}
