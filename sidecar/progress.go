package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"understudy/sidecar/cloud/localcloud/site"
)

// follow shows how the nodes of a local cloud come up until all of them serve. On a terminal it is
// one table that changes, elsewhere a line for every change.
func follow(ctx context.Context, out io.Writer, c site.Client) error {
	b := board{out: out, live: isTerminal(out), said: map[string]string{}}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := c.Status(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		b.show(st, time.Now())
		switch {
		case st.Serving:
			return timeline(out, st)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// board prints the nodes' states.
type board struct {
	out   io.Writer
	live  bool
	lines int               // of the table on the screen
	said  map[string]string // node → what was last printed of it
}

func (b *board) show(st site.Status, now time.Time) {
	if b.live {
		b.redraw(st, now)
		return
	}
	for _, n := range st.Nodes {
		phase := phaseOf(n)
		if phase == "" || b.said[n.Name] == phase {
			continue
		}
		b.said[n.Name] = phase
		fmt.Fprintf(b.out, "%6.1f s  %-8s %s\n", now.Sub(st.Started).Seconds(), n.Name, phase)
	}
}

func (b *board) redraw(st site.Status, now time.Time) {
	var s strings.Builder
	if b.lines > 0 {
		fmt.Fprintf(&s, "\x1b[%dA\x1b[J", b.lines)
	}
	width := 100
	if f, ok := b.out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
			width = w
		}
	}
	for _, n := range st.Nodes {
		line := fmt.Sprintf("%6.1f s  %-8s %s", now.Sub(st.Started).Seconds(), n.Name, stateOf(n, now))
		if !n.Serving.IsZero() {
			line = fmt.Sprintf("%6.1f s  %-8s serving", n.Serving.Sub(st.Started).Seconds(), n.Name)
		}
		if len(line) >= width { // a wrapped line would break the count
			line = line[:width-1]
		}
		s.WriteString(line + "\n")
	}
	b.lines = len(st.Nodes)
	fmt.Fprint(b.out, s.String())
}

// phaseOf is a node's state without what changes all the time, so that each is printed once.
func phaseOf(n site.Node) string {
	switch {
	case n.Machine == 0:
		return ""
	case !n.Serving.IsZero():
		return "serving"
	case !n.Power:
		return "off"
	case n.Bootstrap == nil:
		return "booting"
	}
	if f := n.Bootstrap.Failed; f != nil {
		return "failed: " + f.Error + "; " + f.Next
	}
	if n.Bootstrap.Finished() {
		return sidecarOf(n)
	}
	return n.Bootstrap.Phase + ": " + n.Bootstrap.Message
}

// timeline prints, for every node, how long each phase of its way took.
func timeline(out io.Writer, st site.Status) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "node\tboot\t")
	if len(st.Nodes) == 0 || st.Nodes[0].Bootstrap == nil {
		return nil
	}
	phases := st.Nodes[0].Bootstrap.Steps
	for _, p := range phases {
		fmt.Fprintf(t, "%s\t", p.Name)
	}
	fmt.Fprintln(t, "total\tcpu\t")
	for _, n := range st.Nodes {
		fmt.Fprintf(t, "%s\t%s\t", n.Name, words(n.Bootstrap.Began().Sub(n.Created)))
		for _, p := range phases {
			s, _ := n.Bootstrap.Step(p.Name)
			fmt.Fprintf(t, "%s\t", words(s.Duration()))
		}
		fmt.Fprintf(t, "%s\t%.1fs\t\n", words(n.Serving.Sub(n.Created)), n.CPU)
	}
	var last time.Time
	for _, n := range st.Nodes {
		if n.Serving.After(last) {
			last = n.Serving
		}
	}
	fmt.Fprintf(t, "\n")
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d nodes serve %s after the start\n", len(st.Nodes), words(last.Sub(st.Started)))
	return nil
}
