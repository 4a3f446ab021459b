//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/admin"
	"understudy/sidecar/cloud/localcloud/netns"
	"understudy/sidecar/cloud/localcloud/site"
	"understudy/tests/load"
)

// The reference cluster with its sidecars, under what happens to it. There is nobody to compare with: each stands alone.

const readersPerSecond = 200

// reference brings the reference cluster up and waits until the blog answers steadily.
func reference(b *testing.B) run {
	b.Helper()
	build, repo := environment(b)
	blog := filepath.Join(b.TempDir(), "blog.deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", filepath.Join(repo, "tests", "blog"), blog).CombinedOutput(); err != nil {
		b.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	r := run{b: b, name: fmt.Sprintf("bench%d", os.Getpid())}
	r.command("local", "up", "--name", r.name, "--repo", repo, "--programs", build, "--cache", os.Getenv("UNDERSTUDY_CACHE"), "--publish", blog)
	r.until(time.Minute, "everybody serves and the blog answers", func() bool {
		st := r.ask()
		for _, n := range st.Nodes {
			if n.Phase == "" || n.Phase == "unknown" || n.Phase == "booting" {
				return false
			}
		}
		l := r.readers()
		<-time.After(time.Second)
		got := l.Stop()
		return got.Failed == 0 && got.Requests > 0
	})
	return r
}

// ask is the word of whichever sidecar answers first. The zero status says that none does.
func (r run) ask() admin.Status {
	build, _ := environment(r.b)
	out, _ := exec.Command(filepath.Join(build, "understudy"), "status", "--local", r.name, "--json").Output() // 3: not redundant
	var st admin.Status
	_ = json.Unmarshal(out, &st)
	return st
}

func (r run) primary(role string) string {
	for _, x := range r.ask().Roles {
		if x.Name == role {
			return x.Primary
		}
	}
	return ""
}

func (r run) until(limit time.Duration, what string, so func() bool) {
	r.b.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		if time.Now().After(deadline) {
			r.b.Fatalf("not so after %v: %s; status: %+v", limit, what, r.ask())
		}
		<-tick.C
	}
}

// readers fetch the blog through the reserved address, from inside the cloud.
func (r run) readers() *load.Load {
	r.b.Helper()
	ns, err := netns.Open(site.Namespace(r.name))
	if err != nil {
		r.b.Fatal(err)
	}
	r.b.Cleanup(func() { ns.Close() })
	return load.Start(context.Background(), load.Config{
		URL: "http://203.0.113.10/", Rate: readersPerSecond,
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return nil, err
			}
			return ns.Dial(ctx, at)
		},
	})
}

func (r run) on(node string, argv ...string) string {
	r.b.Helper()
	build, _ := environment(r.b)
	out, err := exec.Command(filepath.Join(build, "understudy"), append([]string{"local", "exec", "--name", r.name, node, "--"}, argv...)...).Output()
	if err != nil {
		r.b.Fatalf("%s: %v: %v", node, argv, err)
	}
	return string(out)
}

// What a sidecar logs of a move at the provider: that the request was accepted, and that the action is over, which it
// learns by asking every second.
var (
	accepted = regexp.MustCompile(`(?m)^([0-9.]+) .*msg=done what="reserved address lb".* took=(\S+)`)
	settled  = regexp.MustCompile(`(?m)^([0-9.]+) .*msg="no longer blocked" what="address of lb"`)
)

// provider is how long the newest move of the balancers' address took at the provider: from the request until the new holder
// saw the action done.
func (r run) provider(node string) time.Duration {
	log := r.on(node, "journalctl", "-u", "understudy", "-o", "short-unix", "--no-pager")
	asked := accepted.FindAllStringSubmatchIndex(log, -1)
	if len(asked) == 0 {
		r.b.Fatalf("%s has not moved the address:\n%s", node, log)
	}
	m := asked[len(asked)-1]
	took, err := time.ParseDuration(log[m[4]:m[5]])
	if err != nil {
		r.b.Fatal(err)
	}
	done := settled.FindStringSubmatch(log[m[1]:])
	if done == nil {
		return took // it was over with the answer
	}
	seconds := func(text string) float64 {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			r.b.Fatal(err)
		}
		return v
	}
	return took + time.Duration((seconds(done[1])-seconds(log[m[2]:m[3]]))*float64(time.Second))
}

// BenchmarkIncident is what readers notice of a loss and of a planned move, and how long the rest takes.
func BenchmarkIncident(b *testing.B) {
	b.Run("switchover/understudy", func(b *testing.B) {
		for range b.N {
			r := reference(b)
			rest(r)
			var failed int
			var longest time.Duration
			const moves = 10
			for range moves {
				from := r.primary("lb")
				l := r.readers()
				r.command("switchover", "lb", "--local", r.name)
				r.until(time.Minute, "the duty has moved", func() bool { p := r.primary("lb"); return p != "" && p != from })
				<-time.After(time.Second)
				got := l.Stop()
				b.Log(got)
				failed += got.Failed
				longest = max(longest, got.Longest)
			}
			b.ReportMetric(float64(failed)/moves, "failed/move")
			b.ReportMetric(longest.Seconds(), "s/longest")
			r.down()
		}
		b.ReportMetric(0, "ns/op")
	})
	b.Run("lb-lost/understudy", func(b *testing.B) {
		for range b.N {
			r := reference(b)
			lost := r.primary("lb")
			l := r.readers()
			r.command("local", "destroy", "--name", r.name, lost)
			r.until(time.Minute, "the other node has the duty", func() bool { p := r.primary("lb"); return p != "" && p != lost })
			<-time.After(3 * time.Second)
			got := l.Stop()
			b.Log(got)
			b.ReportMetric(float64(got.Failed), "failed/loss")
			b.ReportMetric(got.Gap.Seconds(), "s/gap")
			b.ReportMetric(r.provider(r.primary("lb")).Seconds(), "s/provider")
			r.down()
		}
		b.ReportMetric(0, "ns/op")
	})
	b.Run("half-lost/understudy", func(b *testing.B) {
		for range b.N {
			r := reference(b)
			lost := map[string]string{"lb": r.primary("lb"), "mail": r.primary("mail"), "repo": r.primary("repo")}
			began := time.Now()
			r.command("local", "destroy", "--name", r.name, lost["lb"], lost["mail"], lost["repo"], "web1")
			r.until(2*time.Minute, "every duty has moved", func() bool {
				for role, was := range lost {
					if p := r.primary(role); p == "" || p == was {
						return false
					}
				}
				return true
			})
			b.ReportMetric(time.Since(began).Seconds(), "s/moved")
			r.down()
		}
		b.ReportMetric(0, "ns/op")
	})
}

// rest measures the sidecars of a cluster that has nothing to do: the means over the nodes, and the dearest.
func rest(r run) {
	r.b.Helper()
	const lasts = 30 * time.Second
	ticks := func(node string) (cpu float64, rss float64) {
		out := r.on(node, "sh", "-c", `p=$(systemctl show -p MainPID --value understudy); cut -d' ' -f14,15 /proc/$p/stat; awk '/VmRSS/ {print $2}' /proc/$p/status`)
		f := strings.Fields(out)
		if len(f) != 3 {
			r.b.Fatalf("%s: %q", node, out)
		}
		var v [3]float64
		for i := range f {
			var err error
			if v[i], err = strconv.ParseFloat(f[i], 64); err != nil {
				r.b.Fatal(err)
			}
		}
		return (v[0] + v[1]) / 100, v[2] / 1024 // USER_HZ is 100 on every Linux that Debian runs on
	}
	<-time.After(5 * time.Second)
	before := map[string]float64{}
	for _, n := range r.status().Nodes {
		before[n.Name], _ = ticks(n.Name)
	}
	began := time.Now()
	<-time.After(lasts)
	var sum, most, mem float64
	for name, was := range before {
		cpu, rss := ticks(name)
		share := (cpu - was) / time.Since(began).Seconds() * 100
		sum, most, mem = sum+share, max(most, share), max(mem, rss)
	}
	r.b.ReportMetric(sum/float64(len(before)), "%core/sidecar")
	r.b.ReportMetric(most, "%core/dearest")
	r.b.ReportMetric(mem, "MB/sidecar")
}
