package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"understudy/sidecar/admin"
	"understudy/sidecar/admin/show"
	"understudy/sidecar/cloud/localcloud/site"
	"understudy/sidecar/config"
)

// where says which sidecar a command asks: the one of this machine, unless it is told otherwise.
type where struct {
	socket, connect, cert, key, local, node string
}

// askFor is how long one sidecar may take to answer. It knows the answer already, unless it must read the ledger for it.
const askFor = 25 * time.Second

const whereHelp = `

It asks the sidecar of the machine it runs on, which takes root. From elsewhere: --local NAME asks a node of a
local cloud, --connect HOST:PORT any node over the network, with a certificate that "understudy access" has made
on a node.`

func (w *where) flags(cmd *cobra.Command) {
	w.reach(cmd)
	cmd.Flags().StringVar(&w.node, "node", "", "with --local: ask this node and no other")
	cmd.MarkFlagsMutuallyExclusive("node", "connect")
	_ = cmd.RegisterFlagCompletionFunc("node", w.complete(nodeNames)) // fails for flags that do not exist
}

// reach are the flags of a command that asks whichever node will do.
func (w *where) reach(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.socket, "socket", "", "admin socket of the sidecar on this machine (default: as "+config.Path+" says)")
	f.StringVar(&w.local, "local", "", "ask a node of this local cloud")
	f.StringVar(&w.connect, "connect", "", "ask the node at HOST:PORT over mutual TLS")
	f.StringVar(&w.cert, "cert", "", "with --connect: file with the certificate that understudy access has made")
	f.StringVar(&w.key, "key", "", "with --connect: file with its key (default: that of --cert)")
	cmd.MarkFlagsMutuallyExclusive("socket", "local", "connect")
	cmd.MarkFlagsRequiredTogether("connect", "cert")
	_ = cmd.RegisterFlagCompletionFunc("local", completeLocal)
	for _, flag := range []string{"connect"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
}

// clients are the sidecars that may be asked, the first preferred. The caller closes them.
func (w *where) clients(ctx context.Context) ([]*admin.Client, error) {
	switch {
	case w.node != "" && w.local == "":
		return nil, errors.New("--node needs --local NAME; a node elsewhere is asked with --connect HOST:PORT, or there")
	case w.local != "":
		return w.localClients(ctx)
	case w.connect != "":
		return w.remoteClient()
	}
	socket := w.socket
	if socket == "" {
		socket = config.Default().Socket
		if cfg, err := config.Load(config.Path); err == nil { // a file with problems is the sidecar's to complain about
			socket = cfg.Socket
		}
	}
	return []*admin.Client{admin.NewSocketClient(socket)}, nil
}

func (w *where) remoteClient() ([]*admin.Client, error) {
	cert, err := os.ReadFile(w.cert)
	if err != nil {
		return nil, err
	}
	key := cert
	if w.key != "" {
		if key, err = os.ReadFile(w.key); err != nil {
			return nil, err
		}
	}
	cfg, err := admin.ReadPEM(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", w.cert, err)
	}
	return []*admin.Client{admin.NewTLSClient(w.connect, cfg)}, nil
}

// localClients reaches into the nodes of a local cloud, where the socket is a file like any other: a socket with a path is
// found through the file system, whatever the network namespace (unix(7)).
func (w *where) localClients(ctx context.Context) ([]*admin.Client, error) {
	if err := needRoot("asking a node of a local cloud"); err != nil {
		return nil, err
	}
	c, err := client(w.local)
	if err != nil {
		return nil, err
	}
	st, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	nodes := st.Nodes
	if w.node != "" {
		n, err := findNode(st, w.node)
		if err != nil {
			return nil, err
		}
		nodes = []site.Node{n}
	}
	var all []*admin.Client
	for _, n := range nodes {
		if n.Leader != 0 {
			all = append(all, admin.NewSocketClient(filepath.Join("/proc", strconv.Itoa(n.Leader), "root", config.Default().Socket)))
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no node of local cloud %s is on; see: understudy local status --name %[1]s", w.local)
	}
	return all, nil
}

// ask finds the sidecar to talk to and what it believes: the first that has a majority of the members with it, since that
// is where decisions are made; without one the first that answers. The caller closes the client.
func (w *where) ask(ctx context.Context) (*admin.Client, admin.Status, error) {
	return w.askBut(ctx, "")
}

// askBut does the same, and asks anybody but one node.
func (w *where) askBut(ctx context.Context, but string) (*admin.Client, admin.Status, error) {
	all, err := w.clients(ctx)
	if err != nil {
		return nil, admin.Status{}, err
	}
	var chosen *admin.Client
	var st admin.Status
	var errs []error
	for _, c := range all {
		if chosen != nil && st.Majority.Have {
			c.Close()
			continue
		}
		one, cancel := context.WithTimeout(ctx, askFor)
		got, err := c.Status(one)
		cancel()
		switch {
		case err != nil:
			errs = append(errs, err)
			c.Close()
		case got.Node == but:
			errs = append(errs, fmt.Errorf("%s answers, and is not to be asked", but))
			c.Close()
		case chosen == nil || got.Majority.Have:
			if chosen != nil {
				chosen.Close()
			}
			chosen, st = c, got
		default:
			c.Close()
		}
	}
	if chosen == nil {
		return nil, st, errors.Join(errs...)
	}
	return chosen, st, nil
}

// lookAt is how text may look on w.
func lookAt(w io.Writer) show.Look {
	look := show.Look{Zone: time.Local}
	if !isTerminal(w) {
		return look
	}
	// https://no-color.org, and terminals that cannot.
	look.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	look.Width = 80
	if width, _, err := term.GetSize(int(w.(*os.File).Fd())); err == nil && width > 0 {
		look.Width = width
	}
	return look
}

// complete offers what pick finds in the live status to the shell, and nothing when there is none to be had.
func (w *where) complete(pick func(admin.Status, []string) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
		defer cancel()
		c, st, err := w.ask(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c.Close()
		fits := slices.DeleteFunc(pick(st, args), func(s string) bool { return !strings.HasPrefix(s, begun) })
		return fits, cobra.ShellCompDirectiveNoFileComp
	}
}

// nodeNames offers every node with its role.
func nodeNames(st admin.Status, _ []string) []string {
	var out []string
	for _, n := range st.Nodes {
		out = append(out, n.Name+"\t"+strings.TrimSpace(n.Role+" "+n.Duty)+", "+n.Phase)
	}
	return out
}

// completeLocal offers the local clouds that have a directory.
func completeLocal(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	entries, err := os.ReadDir(localState)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
