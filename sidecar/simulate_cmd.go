package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"understudy/bootstrap/role"
	"understudy/tests/sim"
)

// simulateOptions are the flags of simulate.
type simulateOptions struct {
	days                   int
	seed                   uint64
	every                  time.Duration
	asJSON, rails, history bool
}

// historyDays is how long one history is; longer sweeps are made of several, beside each other.
const historyDays = 100

func simulateCommand() *cobra.Command {
	var o simulateOptions
	cmd := &cobra.Command{
		Use:   "simulate [roles.yaml]",
		Short: "Play months of trouble with the real decisions, and see what becomes of a cluster",
		Long: `Simulate plays histories of a whole cluster: the code that decides on the nodes, and around it a network, a
ledger, a provider and operators that fail in every way the project knows of, each with a seed. Time without
trouble is skipped. Laws are held at every step (two nodes never answer on one address, nobody's healthy machine
is touched, no machine too many is made, who cannot act says why, and so on): a law that is broken is a bug,
please report its seed (and see --history of it).

It tells for how much of the time every node was there, and how long it took until it was again. A schedule of
faults is one to four that overlap; one comes every --every on average. They are far worse than a usual week.

Without a file, the roles.yaml of the enclosing checkout is taken. The same seed gives the same history.`,
		Example: `  understudy simulate --days 10000
  understudy simulate --days 1000 --seed 7 --every 24h --json ~/cluster/roles.yaml
  understudy simulate --seed 7 --days 100 --history
  understudy simulate --rails`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return simulate(cmd, o, args) },
	}
	f := cmd.Flags()
	f.IntVar(&o.days, "days", 1000, "how many days of the cluster's life to play")
	f.Uint64Var(&o.seed, "seed", 1, "which histories")
	f.DurationVar(&o.every, "every", 7*24*time.Hour, "mean time between two schedules of faults; each has at least an hour to itself")
	f.BoolVar(&o.rails, "rails", false, "instead, switch each safety rule off in turn, and show the harm that is seen then")
	f.BoolVar(&o.history, "history", false, fmt.Sprintf("tell first what happened, step by step (of %d days at most)", historyDays))
	f.BoolVar(&o.asJSON, "json", false, "print JSON, whose keys are a promise")
	return cmd
}

func simulate(cmd *cobra.Command, o simulateOptions, args []string) error {
	debug.SetGCPercent(1600) // little lives long here
	if o.rails {
		return simulateRails(cmd.Context(), cmd.OutOrStdout())
	}
	if o.days < 1 || o.every < 0 {
		return errors.New("--days must be at least 1, and --every not negative")
	}
	if o.history && (o.days > historyDays || o.asJSON) {
		return fmt.Errorf("--history tells of %d --days at most, and not as --json", historyDays)
	}
	cluster, err := clusterToPlay(args)
	if err != nil {
		return err
	}
	length := time.Duration(min(o.days, historyDays)) * 24 * time.Hour
	s := sim.Sweep{
		Options: sim.Options{Cluster: cluster, Length: length, Every: max(o.every, time.Nanosecond), History: o.history},
		Seed:    o.seed, Count: (o.days + historyDays - 1) / historyDays, Workers: runtime.GOMAXPROCS(0),
	}
	if screen := cmd.ErrOrStderr(); isTerminal(screen) {
		s.Done = func(played int) { fmt.Fprintf(screen, "\r%d of %d days", min(played*historyDays, o.days), o.days) }
		defer fmt.Fprint(screen, "\r\x1b[K")
	}
	t := s.Run(cmd.Context())
	if err := cmd.Context().Err(); err != nil {
		return fmt.Errorf("stopped after %d of %d histories: %w", t.Played, s.Count, err)
	}
	for _, line := range t.History {
		fmt.Fprintln(cmd.OutOrStdout(), line)
	}
	return tellSimulated(cmd.OutOrStdout(), o, t)
}

func clusterToPlay(args []string) (*sim.Cluster, error) {
	var path string
	if len(args) == 1 {
		path = args[0]
	} else {
		root, err := findRepo("")
		if err != nil {
			return nil, err
		}
		path = filepath.Join(root, "roles.yaml")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	roster, err := role.Parse(path, text)
	if err != nil {
		return nil, err
	}
	return sim.NewCluster(roster)
}

// simulated is what simulate --json prints.
type simulated struct {
	Days       int      `json:"days"`
	Seed       uint64   `json:"seed"`
	Trace      string   `json:"trace"` // a hash of all that happened
	Violations []string `json:"violations"`
	CPUSeconds float64  `json:"cpu_seconds"`
	Faults     int      `json:"faults"`
	Takeovers  int      `json:"takeovers"`
	Created    int      `json:"machines_created"`
	// Whole is the share of the time in which every node was there, Losses how often not, and the rest how long it took then.
	Whole         float64 `json:"whole"`
	Losses        int     `json:"losses"`
	Extinct       int     `json:"extinct"` // histories that ended early, because no node with a role was left
	HealedMedian  float64 `json:"healed_median_seconds"`
	HealedP99     float64 `json:"healed_p99_seconds"`
	HealedLongest float64 `json:"healed_longest_seconds"`
}

var errViolated = errors.New("laws were broken")

func tellSimulated(out io.Writer, o simulateOptions, t sim.Total) error {
	quantile := func(q float64) time.Duration {
		if len(t.Healed) == 0 {
			return 0
		}
		return t.Healed[int(q*float64(len(t.Healed)-1))]
	}
	r := simulated{
		Days: int(t.Simulated / (24 * time.Hour)), Seed: o.seed, Trace: fmt.Sprintf("%016x", t.Trace), Violations: t.Violations,
		CPUSeconds: t.CPU.Seconds(), Faults: t.Faults, Takeovers: t.Takeovers, Created: t.Created,
		Whole: 1 - t.Maimed.Seconds()/t.Simulated.Seconds(), Losses: len(t.Healed), Extinct: t.Lost,
		HealedMedian: quantile(0.5).Seconds(), HealedP99: quantile(0.99).Seconds(), HealedLongest: quantile(1).Seconds(),
	}
	var failed error
	if len(r.Violations) > 0 {
		failed = fmt.Errorf("%w: %d", errViolated, len(r.Violations))
	} else {
		r.Violations = []string{}
	}
	if o.asJSON {
		return errors.Join(printJSON(out, r), failed)
	}
	fmt.Fprintf(out, "%d days, %d faults, %d takeovers, %d new machines, in %.1f s of CPU (%.0f days a second); trace %s\n",
		r.Days, r.Faults, r.Takeovers, r.Created, r.CPUSeconds, float64(r.Days)/max(r.CPUSeconds, 0.001), r.Trace)
	fmt.Fprintf(out, "every node was there %.4f %% of the time; %d times one was not, for %s (median), %s (99 of 100), %s (longest)\n",
		100*r.Whole, r.Losses, words(quantile(0.5)), words(quantile(0.99)), words(quantile(1)))
	if r.Extinct > 0 {
		fmt.Fprintf(out, "%d times no node with a role was left, and the history ended: a beachhead only votes here\n", r.Extinct)
	}
	fmt.Fprintf(out, "laws broken: %d\n", len(r.Violations))
	for _, v := range r.Violations {
		fmt.Fprintln(out, "  "+v)
	}
	return failed
}

// simulateRails shows what each rail is good for.
func simulateRails(ctx context.Context, out io.Writer) error {
	all, caught := sim.Rails(), 0
	for _, r := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		harm := r.Without()
		if harm == "" {
			harm = "no harm seen"
		} else {
			caught++
		}
		fmt.Fprintf(out, "without %-18s %s\n", r.Name+":", harm)
	}
	fmt.Fprintf(out, "%d of %d rails: the harm is seen without them\n", caught, len(all))
	if caught < len(all) {
		return errViolated
	}
	return nil
}
