package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"understudy/bootstrap/control"
	"understudy/bootstrap/role"
	"understudy/bootstrap/secrets"
	"understudy/sidecar/admin"
	"understudy/sidecar/cloud/digitalocean"
	"understudy/sidecar/config"
	"understudy/sidecar/launch"
	"understudy/sidecar/ledger"
	"understudy/sidecar/ledger/sigv4"
)

// Names in the directory of --keys: the cluster's private key, and the allowed signers of the control repo.
const (
	clusterKey  = "cluster.key"
	signersFile = "allowed_signers"
)

// adminPort is where the sidecars of ordinary nodes answer operators.
const adminPort = "7747"

// launchOptions are the flags of launch.
type launchOptions struct {
	repo, keys, signers, oldest, seed, local string
	timeout                                  time.Duration
	noWait, json                             bool
}

func launchCommand() *cobra.Command {
	var o launchOptions
	cmd := &cobra.Command{
		Use: "launch --keys DIR", Short: "Begin a cluster from nothing", Args: cobra.NoArgs,
		Long: `Launch creates one machine at the provider, the seed, and hands it the cluster's identity over SSH. The seed then hires
machines for all other nodes, just as the last node of a cluster would that had lost all others, and launch shows how they come.

Before, at DigitalOcean: the image that roles.yaml names, the SSH keys, the reserved addresses and the zone must be there, and the
control repo must be pushed, signed, to where the image fetches it. In DIR lies ` + clusterKey + `, as understudy secrets init has made it (it
opens secrets.age, which has the provider's token and the ledger's keys), and ` + signersFile + `, whose commits the nodes shall apply: a line
for each signer, NAME and public SSH key.

Nothing has to be trusted on first use. The seed proves itself with a host key made for it alone, and takes an identity from nobody but
the holder of ` + clusterKey + `. The identity is never in user data, which every process there can read. TCP port 7749 of the seed must be
reachable from here, until it has the identity.

Launch refuses to begin beside a cluster that lives, and deletes nothing. Whatever cuts it short, run it again: it goes on with the same
machine, and never asks for a second one while there may be a first.`,
		Example: `  understudy launch --keys ~/blog-keys
  understudy launch --keys ~/blog-keys --no-wait    # the seed does the rest; look with understudy status
  sudo understudy launch --local demo               # in a local cloud that was brought up with --empty`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runLaunch(cmd, o) },
	}
	repoFlag(cmd, &o.repo)
	f := cmd.Flags()
	f.StringVar(&o.keys, "keys", "", "directory with "+clusterKey+" and "+signersFile)
	f.StringVar(&o.signers, "signers", "", "file with the allowed signers of the control repo (default: "+signersFile+" in the directory of the keys)")
	f.StringVar(&o.oldest, "oldest-commit", "", "commit that all that is ever applied must descend from, or be (default: any)")
	f.StringVar(&o.seed, "seed-node", "", "node to begin with (default: the first whose role needs nothing of other roles)")
	f.StringVar(&o.local, "local", "", "launch in this local cloud, whose operator's keys are known")
	f.DurationVar(&o.timeout, "timeout", 20*time.Minute, "give up after this long (machines stay)")
	f.BoolVar(&o.noWait, "no-wait", false, "return as soon as the seed has the identity")
	f.BoolVar(&o.json, "json", false, "print the seed as JSON at the end (node, machine_id, address), and progress to stderr")
	cmd.MarkFlagsOneRequired("keys", "local")
	for _, flag := range []string{"keys", "signers", "repo", "oldest-commit"} {
		cmd.MarkFlagsMutuallyExclusive("local", flag)
	}
	_ = cmd.RegisterFlagCompletionFunc("local", completeLocal)
	return cmd
}

func runLaunch(cmd *cobra.Command, o launchOptions) error {
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), o.timeout, fmt.Errorf("not within %v", o.timeout))
	defer cancel()
	out := cmd.OutOrStdout()
	if o.json {
		out = cmd.ErrOrStderr()
	}
	var at launchAt
	var err error
	if o.local == "" {
		at, err = operatorsLaunch(o)
	} else {
		at, err = localLaunch(ctx, o.local)
	}
	if err != nil {
		return err
	}
	seed, err := at.launch(ctx, out, o.seed)
	err = errors.Join(err, at.close())
	if err != nil {
		return err
	}
	if !o.noWait {
		if err := at.follow(ctx, out, seed); err != nil {
			return err
		}
	}
	if o.json {
		return printJSON(cmd.OutOrStdout(), seed)
	}
	return nil
}

// launchAt is where a cluster is launched, and with what.
type launchAt struct {
	roster role.Roster
	bundle secrets.Bundle
	member secrets.Membership
	// What the provider and the ledger are reached by; the zero values: as roles.yaml says.
	provider digitalocean.Config
	store    config.Ledger
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	follow   func(ctx context.Context, out io.Writer, seed launch.Seed) error
	close    func() error
}

// operatorsLaunch reads what an operator has at hand: the checkout of the control repo and the cluster's key.
func operatorsLaunch(o launchOptions) (launchAt, error) {
	dir, err := findRepo(o.repo)
	if err != nil {
		return launchAt{}, err
	}
	at := launchAt{dial: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, close: func() error { return nil }}
	if o.signers == "" {
		o.signers = filepath.Join(o.keys, signersFile)
	}
	if err := at.read(dir, filepath.Join(o.keys, clusterKey), o.signers); err != nil {
		return at, err
	}
	at.follow = at.followByAdmin
	at.member.OldestCommit = o.oldest
	return at, nil
}

// read reads the control repo, its secrets with the cluster's own key (what opens them here opens them on every node), and whose
// commits the nodes shall apply.
func (at *launchAt) read(repo, key, signers string) error {
	path := filepath.Join(repo, "roles.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if at.roster, err = role.Parse(path, data); err != nil {
		return err
	}
	if at.bundle, err = openSecrets(repo, key); err != nil {
		return fmt.Errorf("%w; it must be the cluster's own key, which secrets.recipients names", err)
	}
	text, err := os.ReadFile(key)
	if err != nil {
		return err
	}
	ids, err := age.ParseIdentities(strings.NewReader(string(text)))
	if err != nil || len(ids) != 1 {
		return fmt.Errorf("%s: it must hold one private key of age", key) // age's own error may quote it
	}
	id, ok := ids[0].(*age.X25519Identity)
	if !ok {
		return fmt.Errorf("%s: it must hold a native key of age, as understudy secrets init makes it", key)
	}
	at.member.Identity = id
	if at.member.AllowedSigners, err = os.ReadFile(signers); err != nil {
		return fmt.Errorf("%w; it must name whose commits of the control repo are applied, a line each: NAME KEY, as in ssh-keygen(1)", err)
	}
	_, err = control.ParseSigners(signers, at.member.AllowedSigners)
	return err
}

// launch puts the parts together and runs.
func (at *launchAt) launch(ctx context.Context, out io.Writer, seed string) (launch.Seed, error) {
	token := at.bundle.Provider["digitalocean"]
	if at.roster.Provider.Kind != "digitalocean" || token.IsZero() {
		return launch.Seed{}, fmt.Errorf("launch knows DigitalOcean, and roles.yaml has provider %s; its token must be in secrets.age (understudy secrets edit)",
			at.roster.Provider.Kind)
	}
	place, keys := at.store.Over(at.roster.Ledger), at.bundle.Ledger
	if place == nil || keys.AccessKey.IsZero() {
		return launch.Seed{}, errors.New("a cluster is launched by its ledger: name one in roles.yaml (ledger:), and put its keys into secrets.age (understudy secrets edit)")
	}
	at.provider.Token, at.provider.Tag = token, at.roster.Cluster
	client, err := digitalocean.New(at.provider)
	if err != nil {
		return launch.Seed{}, err
	}
	defer client.Close()
	store, err := ledger.NewS3(ledger.S3Config{
		Endpoint: place.Endpoint, Bucket: place.Bucket, Region: place.Region, Keys: sigv4.Keys{AccessKey: keys.AccessKey, SecretKey: keys.SecretKey}, Dial: at.dial,
	})
	if err != nil {
		return launch.Seed{}, err
	}
	defer store.Close()
	if seed == "" {
		seed = launch.FirstToAct(at.roster)
	}
	began := time.Now()
	return launch.Run(ctx, launch.Config{
		Roster: at.roster, Seed: seed, Membership: at.member, ClusterKey: at.bundle.ClusterKey, Provider: client, Ledger: ledger.New(store, at.roster.Cluster),
		Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return at.dial(ctx, "tcp", to.String())
		},
		Say: func(line string) { fmt.Fprintf(out, "%6.1f s  %s\n", time.Since(began).Seconds(), line) },
	})
}

// followByAdmin shows what the seed says of the others, until all nodes have come as far as they can. What the seed does before it
// answers is in its own log only.
func (at *launchAt) followByAdmin(ctx context.Context, out io.Writer, seed launch.Seed) error {
	authority, err := admin.NewAuthority(at.bundle.ClusterKey)
	if err != nil {
		return err
	}
	cert, err := authority.Operator(time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour))
	if err != nil {
		return err
	}
	c := admin.NewTLSClient(net.JoinHostPort(seed.Address.String(), adminPort), authority.Client(cert))
	defer c.Close()
	began, said := time.Now(), map[string]string{}
	var lost error
	for {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		st, err := c.Status(one)
		cancel()
		switch {
		case err != nil:
			lost = err
		case at.tell(out, st, said, began):
			_, err := fmt.Fprintf(out, "all %d nodes are up; see: understudy status\n", len(st.Nodes))
			return err
		default:
			lost = nil
		}
		if pace(ctx, watchPace) != nil {
			why := fmt.Errorf("not all nodes serve (%w); the seed goes on by itself; see, on %s: understudy status", context.Cause(ctx), seed.Node)
			return errors.Join(why, lost)
		}
	}
}

// tell prints what is new of every node, and returns whether all of them have come as far as they can.
func (at *launchAt) tell(out io.Writer, st admin.Status, said map[string]string, began time.Time) bool {
	all := len(st.Nodes) > 0
	for _, n := range st.Nodes {
		i := slices.IndexFunc(at.roster.Roles, func(r role.Role) bool { return r.Name == n.Role })
		all = all && n.Settled(i >= 0 && len(at.roster.Roles[i].Data) > 0)
		if n.Heard() && said[n.Name] != n.Phase {
			said[n.Name] = n.Phase
			fmt.Fprintf(out, "%6.1f s  %-8s %s\n", time.Since(began).Seconds(), n.Name, n.Phase)
		}
	}
	return all
}
