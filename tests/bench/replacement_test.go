//go:build linux

package bench

import (
	"testing"
	"time"

	"understudy/sidecar/admin"
	"understudy/sidecar/cloud/localcloud/site"
)

// What the loss of machines costs beyond what no program can save: the floor is the boot of a machine and its Puppet run. Both
// are of the same cluster in the same run: for one node, from the creation of its new machine until that serves; for seven, the
// first boot of the whole cluster, whose nodes boot side by side, too.

// BenchmarkReplacement destroys one node of each role in turn, and then all but one.
func BenchmarkReplacement(b *testing.B) {
	b.Run("understudy", func(b *testing.B) {
		for range b.N {
			r := reference(b)
			first := lastServing(r.status())
			one := func(role string) {
				lost := role + "1"
				if p := r.primary(role); p != "" {
					lost = p
				}
				whole, floor := r.replace(lost)
				b.ReportMetric(whole.Seconds(), "s/whole-"+role)
				b.ReportMetric(floor.Seconds(), "s/floor-"+role)
			}
			for _, role := range []string{"lb", "web", "mail"} {
				one(role)
			}
			survivor := r.primary("repo") // it has the packages, which nobody else has yet
			var others []string
			for _, n := range r.status().Nodes {
				if n.Name != survivor {
					others = append(others, n.Name)
				}
			}
			whole, _ := r.replace(others...)
			b.ReportMetric(whole.Seconds(), "s/whole-seven")
			b.ReportMetric(first.Seconds(), "s/floor-seven")
			one("repo")
			r.down()
		}
		b.ReportMetric(0, "ns/op")
	})
}

// replace destroys nodes at once, and waits until they have new machines that serve, and everybody knows that. It returns how long
// that took, and how long the slowest new machine took from its creation.
func (r run) replace(lost ...string) (whole, floor time.Duration) {
	r.b.Helper()
	was := r.byName()
	began := time.Now()
	r.command(append([]string{"local", "destroy", "--name", r.name}, lost...)...)
	r.until(4*time.Minute, "the lost nodes have new machines that serve", func() bool {
		is := r.byName()
		for _, k := range lost {
			if is[k].Machine == 0 || is[k].Machine == was[k].Machine || is[k].Serving.IsZero() {
				return false
			}
		}
		return true
	})
	for _, k := range lost {
		n := r.byName()[k]
		whole, floor = max(whole, n.Serving.Sub(began)), max(floor, n.Serving.Sub(n.Created))
	}
	r.until(time.Minute, "the cluster counts them", func() bool {
		st := r.ask()
		for _, n := range st.Nodes {
			if !counted(n) {
				return false
			}
		}
		return len(st.Nodes) > 0
	})
	return whole, floor
}

// counted says that the others know that a node does its part. What those with data lack before they serve is the data.
func counted(n admin.Node) bool { return n.Phase == "serving" || n.Phase == "applied" }

func (r run) byName() map[string]site.Node {
	all := map[string]site.Node{}
	for _, n := range r.status().Nodes {
		all[n.Name] = n
	}
	return all
}
