package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"understudy/bootstrap/command"
	"understudy/sidecar/cloud/localcloud/site"
)

// upOptions are the flags of local up.
type upOptions struct {
	name, repo, cache, programs string
	forwards, publish           []string
	timeout, cableWait          time.Duration
	install, empty, noWait      bool
}

func localUp() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring a local cloud up and boot the roster in it",
		Long: `Up makes the image if it is not there yet (about a minute, once), starts the local cloud, pushes
roles.yaml and puppet/ of the checkout as a signed commit to the cloud's git remote, and launches the cluster
as understudy launch does: the first node gets a machine and the cluster's identity, and hires the others. It shows
how each becomes what it is, and returns when all nodes serve.

What an earlier cloud of the same name left, even one that was killed, is cleaned first.`,
		Example: `  sudo understudy local up --forward 8080=www:80
  sudo understudy local up --name two --repo ~/cluster`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return bringUp(cmd, o) },
	}
	nameFlag(cmd, &o.name)
	repoFlag(cmd, &o.repo)
	cacheFlag(cmd, &o.cache)
	f := cmd.Flags()
	f.StringArrayVar(&o.forwards, "forward", nil, "[ADDRESS:]PORT=NAME:PORT, make NAME:PORT inside reachable on this machine's loopback; may be repeated")
	f.StringArrayVar(&o.publish, "publish", nil, "file to publish as soon as the publishing role serves (see understudy publish); may be repeated")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "give up waiting after this long (the cloud stays up)")
	f.BoolVar(&o.install, "install", false, "install what this machine lacks with apt-get")
	f.BoolVar(&o.noWait, "no-wait", false, "return as soon as the first node has the cluster's identity, while the others are hired")
	f.DurationVar(&o.cableWait, "network-delay", 0, "machines' networks come up so much later, as on a slow provider")
	f.StringVar(&o.programs, "programs", "", "directory of the two binaries that go into the image (default: where this one lies)")
	f.BoolVar(&o.empty, "empty", false, "only make the cloud: understudy launch --local NAME does the rest")
	return cmd
}

func bringUp(cmd *cobra.Command, o upOptions) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	say := func(line string) { fmt.Fprintln(out, line) }
	if err := errors.Join(site.ValidName(o.name), needRoot("running a local cloud")); err != nil {
		return err
	}
	forwards, err := parseForwards(o.forwards)
	if err != nil {
		return err
	}
	if err := installTools(ctx, command.Exec{}, say, o.install); err != nil {
		return err
	}
	c := site.Client{Name: o.name, Dir: stateDir(o.name)}
	if _, err := c.Status(ctx); err == nil {
		return fmt.Errorf("local cloud %s is up already; take it down first: understudy local down --name %[1]s", o.name)
	}
	img, repo, err := buildImage(ctx, imageOptions{repo: o.repo, cache: o.cache, programs: o.programs}, say)
	if err != nil {
		return err
	}
	if err := takeDown(ctx, o.name); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	opt := site.Options{
		Name: o.name, Dir: c.Dir, Repo: repo, Trees: img.Trees, Self: self, Forwards: forwards, CableWait: o.cableWait,
	}
	if err := startServer(ctx, c, opt); err != nil {
		return errors.Join(err, takeDown(context.WithoutCancel(ctx), o.name))
	}
	say(fmt.Sprintf("local cloud %s is up, its machines boot from image %s", o.name, img.Hash))
	if o.empty {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not all nodes serve after %v; see: understudy local status --name %s", o.timeout, o.name))
	defer cancel()
	at, err := localLaunch(ctx, o.name)
	if err != nil {
		return err
	}
	seed, err := at.launch(ctx, out, "")
	if err = errors.Join(err, at.close()); err != nil || o.noWait {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, file := range o.publish {
		g.Go(func() error { return publishFile(ctx, c, repo, file, o.timeout, io.Discard) })
	}
	g.Go(func() error { return at.follow(ctx, out, seed) })
	return g.Wait()
}

func parseForwards(given []string) ([]site.Forward, error) {
	var all []site.Forward
	var errs []error
	for _, s := range given {
		f, err := site.ParseForward(s)
		all, errs = append(all, f), append(errs, err)
	}
	return all, errors.Join(errs...)
}

// startServer starts the cloud's process in a session of its own and waits until it answers.
func startServer(ctx context.Context, c site.Client, opt site.Options) error {
	if err := os.MkdirAll(opt.Dir, 0o755); err != nil {
		return err
	}
	input, err := json.Marshal(opt)
	if err != nil {
		return err
	}
	logPath := filepath.Join(opt.Dir, "cloud.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	serve := exec.Command(opt.Self, "local", "serve", opt.Name) // not CommandContext: it outlives us
	serve.Stdin, serve.Stdout, serve.Stderr, serve.Dir = bytes.NewReader(input), log, log, "/"
	serve.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root"}
	serve.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := serve.Start(); err != nil {
		return fmt.Errorf("start the cloud's process: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }() // ends with the process, or with this one
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := c.Status(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return fmt.Errorf("the local cloud did not start:\n%s", logTail(logPath))
		case <-tick.C:
		}
	}
}

func logTail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data[max(0, len(data)-4000):]))
}
