package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"understudy/bootstrap/command"
	"understudy/sidecar/cloud/localcloud/site"
	"understudy/sidecar/image"
)

// imageOptions are the flags that say what an image is made of.
type imageOptions struct {
	repo, cache, programs, branch string
	sources                       []string
	install                       bool
}

func imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Make the generic image from which every node boots",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(imageBuild(), imageProvision(), imageTools(), imageClean())
	return cmd
}

func imageBuild() *cobra.Command {
	var o imageOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Make the image for local clouds, or find it in the cache",
		Long: `Build makes a Debian 13 tree with the packages that puppet/image-packages lists, which takes about
a minute and is done once, and puts our two programs, the unit files and the boot-time configuration on
top. image.json beside the tree lists everything it was made from.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			say := func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			if err := needRoot("making an image"); err != nil {
				return err
			}
			if err := installTools(cmd.Context(), command.Exec{}, say, o.install); err != nil {
				return err
			}
			img, _, err := buildImage(cmd.Context(), o, say)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(img)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "image %s: %s\n", img.Hash, img.Manifest)
			return nil
		},
	}
	imageFlags(cmd, &o)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&o.install, "install", false, "install what this machine lacks with apt-get")
	return cmd
}

func imageFlags(cmd *cobra.Command, o *imageOptions) {
	repoFlag(cmd, &o.repo)
	cacheFlag(cmd, &o.cache)
	cmd.Flags().StringVar(&o.programs, "programs", "", "directory of the two binaries (default: where this one lies)")
	cmd.Flags().StringArrayVar(&o.sources, "source", nil, "URL of the control repo; may be repeated, tried in order (default: a local cloud's)")
	cmd.Flags().StringVar(&o.branch, "branch", "main", "branch of the control repo that nodes follow")
}

// imageProvision turns a provider's fresh machine into what the provider's image is made of.
func imageProvision() *cobra.Command {
	var o imageOptions
	var really bool
	cmd := &cobra.Command{
		Use:   "provision",
		Short: "Turn this fresh Debian 13 machine into the image (to be run on a droplet)",
		Long: `Provision installs the packages that puppet/image-packages lists, puts our programs, units and
configuration in place, and removes what must differ between machines (machine-id, SSH host keys). Then
power the machine off and let the provider make an image of it: every node can boot from that.

It is meant for a machine that was created for nothing else, and asks for --really because it stops
services and removes host keys.`,
		Example: `  understudy image provision --really --repo . --source https://git.example/cluster.git && poweroff`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot("provisioning"); err != nil {
				return err
			}
			if !really {
				return errors.New("this changes the machine it runs on for good: add --really on a droplet made for it")
			}
			if len(o.sources) == 0 {
				return errors.New("say where nodes find the control repo: --source URL")
			}
			l, _, err := layer(o)
			if err != nil {
				return err
			}
			return image.Provision(cmd.Context(), command.Exec{}, l, func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) })
		},
	}
	imageFlags(cmd, &o)
	cmd.Flags().BoolVar(&really, "really", false, "this machine was created to become the image")
	return cmd
}

// imageTools makes the tree with the programs that tests and benchmarks compare with.
func imageTools() *cobra.Command {
	var o imageOptions
	cmd := &cobra.Command{
		Use:   "tools PACKAGE...",
		Short: "Make a tree with more packages, for tests (see the Makefile)",
		Args:  cobra.MinimumNArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, packages []string) error {
			say := func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			if err := needRoot("making a tree"); err != nil {
				return err
			}
			if err := installTools(cmd.Context(), command.Exec{}, say, o.install); err != nil {
				return err
			}
			cache, err := findCache(o.cache)
			if err != nil {
				return err
			}
			dir, err := image.Builder{Cache: cache, Runner: command.Exec{}, Progress: say}.Base(cmd.Context(), "tools", packages)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), dir)
			return nil
		},
	}
	cacheFlag(cmd, &o.cache)
	cmd.Flags().BoolVar(&o.install, "install", false, "install what this machine lacks with apt-get")
	return cmd
}

func imageClean() *cobra.Command {
	var cache string
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Remove all built images from the cache",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := findCache(cache)
			if err != nil {
				return err
			}
			return image.Builder{Cache: dir}.Clean()
		},
	}
	cacheFlag(cmd, &cache)
	return cmd
}

func layer(o imageOptions) (image.Layer, string, error) {
	repo, err := findRepo(o.repo)
	if err != nil {
		return image.Layer{}, "", err
	}
	programs := o.programs
	if programs == "" {
		self, err := os.Executable()
		if err != nil {
			return image.Layer{}, "", err
		}
		programs = filepath.Dir(self)
	}
	l := image.Layer{Repo: repo, Programs: programs, Sources: o.sources, Branch: cmp.Or(o.branch, "main")}
	if len(l.Sources) == 0 { // so it is for local clouds
		l.Sources, l.Sidecar = []string{site.Source}, site.Sidecar
	}
	return l, repo, nil
}

func buildImage(ctx context.Context, o imageOptions, say func(string)) (image.Image, string, error) {
	l, repo, err := layer(o)
	if err != nil {
		return image.Image{}, "", err
	}
	cache, err := findCache(o.cache)
	if err != nil {
		return image.Image{}, "", err
	}
	img, err := image.Builder{Cache: cache, Runner: command.Exec{}, Progress: say}.Build(ctx, l)
	return img, repo, err
}
