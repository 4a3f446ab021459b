//go:build linux

// Package bench measures what the design promises in figures, always both sides in one run on the
// same machine. Run it with make bench, which repeats it and ends with a table; one run of one side
// says nothing.
package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"golang.org/x/oauth2"

	"understudy/bootstrap/progress"
	"understudy/sidecar/cloud/localcloud/netns"
	"understudy/sidecar/cloud/localcloud/site"
)

// side is one way to turn a machine into a node: a control repo and the program that boot runs.
type side struct {
	name     string
	repo     string // roles.yaml, puppet/, systemd/
	programs string // understudy, understudy-bootstrap
}

func environment(b *testing.B) (build, repo string) {
	b.Helper()
	build = os.Getenv("UNDERSTUDY_BUILD")
	if build == "" || os.Geteuid() != 0 {
		b.Fatal("these benchmarks boot real nodes with the built programs, as root: run them with make bench")
	}
	repo, err := filepath.Abs("../..")
	if err != nil {
		b.Fatal(err)
	}
	return build, repo
}

// ours is this project as it is, with a roster.
func ours(b *testing.B, roster string) side {
	b.Helper()
	build, repo := environment(b)
	dir := b.TempDir()
	copyTree(b, filepath.Join(repo, "puppet"), filepath.Join(dir, "puppet"))
	copyTree(b, filepath.Join(repo, "systemd"), filepath.Join(dir, "systemd"))
	write(b, filepath.Join(dir, "roles.yaml"), roster, 0o644)
	// With nobody else on the machine, the balancer's backend is itself.
	write(b, filepath.Join(dir, "puppet", "data", "nodes", "lb1.yaml"), "profile::lb::backend_role: lb\n", 0o644)
	return side{name: "understudy", repo: dir, programs: build}
}

// shellScript is the obvious alternative: on the same image, a oneshot unit that clones the control
// repo and runs puppet apply. It is spared all that we do besides: it knows its fact already, checks
// no signature, has no secrets, records nothing and survives nothing.
const shellScript = `#!/bin/sh
set -e
until name=$(curl -sf http://169.254.169.254/metadata/v1/hostname); do sleep 0.2; done
hostname "$name"
echo "$name" > /etc/hostname
git clone -q --depth 1 http://control.understudy.internal:3000/control.git /srv/control
mkdir -p /etc/facter/facts.d
cp "/srv/control/puppet/facts/$name.json" /etc/facter/facts.d/understudy.json
exec puppet apply --environmentpath=/srv/control --environment=puppet /srv/control/puppet/manifests
`

const shellUnit = `[Unit]
Description=Clone the control repo and apply it
Wants=network-online.target
After=network-online.target
[Service]
Type=oneshot
ExecStart=/usr/bin/understudy-bootstrap
[Install]
WantedBy=multi-user.target
`

// shell makes the alternative from a side of ours: same Puppet code, same image but for the unit.
func shell(b *testing.B, o side, facts map[string]string) side {
	b.Helper()
	build, _ := environment(b)
	repo, programs := b.TempDir(), b.TempDir()
	copyTree(b, filepath.Join(o.repo, "puppet"), filepath.Join(repo, "puppet"))
	copyTree(b, filepath.Join(o.repo, "systemd"), filepath.Join(repo, "systemd"))
	copyFile(b, filepath.Join(o.repo, "roles.yaml"), filepath.Join(repo, "roles.yaml"))
	for node, fact := range facts {
		write(b, filepath.Join(repo, "puppet", "facts", node+".json"), fact, 0o644)
	}
	write(b, filepath.Join(repo, "systemd", "understudy-bootstrap.service"), shellUnit, 0o644)
	write(b, filepath.Join(programs, "understudy-bootstrap"), shellScript, 0o755)
	copyFile(b, filepath.Join(build, "understudy"), filepath.Join(programs, "understudy"))
	return side{name: "shell", repo: repo, programs: programs}
}

// run is one local cloud of a side.
type run struct {
	b    *testing.B
	name string
}

// up starts a cloud of a side, whose machines' networks come up after delay, and creates its machines: ours by launch, and the others as
// a script would, which knows of no ledger and no understudy.
func (s side) up(b *testing.B, delay time.Duration) run {
	b.Helper()
	r := run{b: b, name: fmt.Sprintf("bench%d", os.Getpid())}
	how := "--no-wait"
	if s.name != "understudy" {
		how = "--empty"
	}
	r.command("local", "up", "--name", r.name, how, "--repo", s.repo, "--programs", s.programs, "--cache", os.Getenv("UNDERSTUDY_CACHE"),
		"--network-delay", delay.String())
	if s.name != "understudy" {
		r.create()
	}
	return r
}

// create asks the provider for a machine for every node.
func (r run) create() {
	r.b.Helper()
	st := r.status()
	ns, err := netns.Open(st.Namespace)
	if err != nil {
		r.b.Fatal(err)
	}
	defer ns.Close()
	token, err := os.ReadFile(st.TokenFile)
	if err != nil {
		r.b.Fatal(err)
	}
	dial := func(ctx context.Context, _, at string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(at)
		if err != nil {
			return nil, err
		}
		return ns.Dial(ctx, to)
	}
	api := godo.NewClient(&http.Client{Transport: &oauth2.Transport{
		Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: strings.TrimSpace(string(token))}),
		Base:   &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}})
	if api.BaseURL, err = url.Parse(strings.TrimSuffix(st.API, "/") + "/"); err != nil {
		r.b.Fatal(err)
	}
	images, _, err := api.Images.ListUser(r.b.Context(), nil)
	if err != nil || len(images) != 1 {
		r.b.Fatalf("got %d images, %v", len(images), err)
	}
	for _, n := range st.Nodes {
		_, _, err := api.Droplets.Create(r.b.Context(), &godo.DropletCreateRequest{
			Name: n.Name, Region: "lon1", Size: "s-1vcpu-1gb", Image: godo.DropletCreateImage{ID: images[0].ID}, Tags: []string{"blog"},
		})
		if err != nil {
			r.b.Fatal(err)
		}
	}
}

func (r run) down() {
	r.b.Helper()
	r.command("local", "down", "--name", r.name)
}

func (r run) command(args ...string) {
	r.b.Helper()
	build, _ := environment(r.b)
	cmd := exec.Command(filepath.Join(build, "understudy"), args...)
	cmd.Env = append(os.Environ(), "HOME=/root")
	if out, err := cmd.CombinedOutput(); err != nil {
		r.b.Fatalf("understudy %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (r run) status() site.Status {
	r.b.Helper()
	st, err := site.Client{Name: r.name, Dir: filepath.Join("/var/lib/understudy-local", r.name)}.Status(r.b.Context())
	if err != nil {
		r.b.Fatal(err)
	}
	return st
}

// served waits until port of a node accepts and returns how long that took from the creation of its
// machine.
func (r run) served(node string, port uint16) time.Duration {
	r.b.Helper()
	ns, err := netns.Open(site.Namespace(r.name))
	if err != nil {
		r.b.Fatal(err)
	}
	defer ns.Close()
	ctx, cancel := context.WithTimeout(r.b.Context(), 2*time.Minute)
	defer cancel()
	var addr netip.AddrPort
	var created time.Time
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if !addr.IsValid() {
			for _, n := range r.status().Nodes {
				if a, err := netip.ParseAddr(n.Address); err == nil && n.Name == node {
					addr, created = netip.AddrPortFrom(a, port), n.Created
				}
			}
		} else if accepts(ctx, ns, addr) {
			return time.Since(created)
		}
		select {
		case <-ctx.Done():
			r.b.Fatalf("%s does not serve: %v", node, ctx.Err())
		case <-tick.C:
		}
	}
}

func accepts(ctx context.Context, ns *netns.Namespace, addr netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	c, err := ns.Dial(ctx, addr)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// oneBalancer is a roster of one node whose role needs nothing from elsewhere.
const oneBalancer = `cluster: blog
domain: blog.example
provider:
  digitalocean: {region: lon1, size: [s-1vcpu-1gb], image: understudy-base, ssh_keys: [ops]}
ledger:
  s3: {endpoint: https://s3.eu-central-003.example, bucket: blog-understudy}
roles:
  lb:
    nodes: [lb1]
    understudy: none
    names: ["@", www]
    health: {units: [haproxy.service]}
`

// fact is what the shell side is given for free.
const balancerFact = `{"understudy":{"cluster":"blog","domain":"blog.example","node":"lb1","role":"lb","first_node":true,
"members":{"lb":["lb1"]},"address":null,"names":["@","www"],"data":[],"primary_units":[],
"roles":{"lb":{"nodes":["lb1"],"address":null,"names":["@","www"]}}}}`

// BenchmarkBoot is the time from the creation of a machine to its first answer on port 80.
func BenchmarkBoot(b *testing.B) {
	for _, network := range []struct {
		name  string
		delay time.Duration
	}{{"prompt", 0}, {"late=3s", 3 * time.Second}} {
		b.Run("network="+network.name, func(b *testing.B) {
			for _, name := range []string{"understudy", "shell"} {
				b.Run(name, func(b *testing.B) {
					s := ours(b, oneBalancer)
					if name == "shell" {
						s = shell(b, s, map[string]string{"lb1": balancerFact})
					}
					measureBoot(b, s, network.delay)
				})
			}
		})
	}
}

func measureBoot(b *testing.B, s side, delay time.Duration) {
	var total time.Duration
	for range b.N {
		r := s.up(b, delay)
		total += r.served("lb1", 80)
		if s.name == "understudy" {
			r.reportUsage("lb1")
		}
		r.down()
	}
	b.ReportMetric(total.Seconds()/float64(b.N), "s/boot")
	b.ReportMetric(0, "ns/op")
}

// reportUsage adds what bootstrap itself and its Puppet run have cost.
func (r run) reportUsage(node string) {
	r.b.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		u := r.usage(node)
		if u != nil && u.Puppet != nil {
			r.b.ReportMetric(float64(u.Bootstrap.MaxRSS)/1e6, "bootstrap-MB")
			r.b.ReportMetric(u.Bootstrap.CPU, "bootstrap-cpu-s")
			r.b.ReportMetric(float64(u.Puppet.MaxRSS)/1e6, "puppet-MB")
			r.b.ReportMetric(u.Puppet.CPU, "puppet-cpu-s")
			return
		}
		if time.Now().After(deadline) {
			r.b.Fatal(errors.New("the node never told what its bootstrap cost"))
		}
		<-tick.C
	}
}

func (r run) usage(node string) *progress.Usage {
	for _, n := range r.status().Nodes {
		if n.Name == node && n.Bootstrap != nil && n.Bootstrap.Finished() {
			return n.Bootstrap.Usage
		}
	}
	return nil
}

// BenchmarkCluster is the time from image ready to eight nodes of four roles serving, and beside it
// eight bare nodes with a small Puppet run each: the floor on this machine.
func BenchmarkCluster(b *testing.B) {
	b.Run("understudy", func(b *testing.B) {
		build, repo := environment(b)
		blog := filepath.Join(b.TempDir(), "blog.deb")
		if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", filepath.Join(repo, "tests", "blog"), blog).CombinedOutput(); err != nil {
			b.Fatalf("dpkg-deb: %v\n%s", err, out)
		}
		var total time.Duration
		for range b.N {
			r := run{b: b, name: fmt.Sprintf("bench%d", os.Getpid())}
			r.command("local", "up", "--name", r.name, "--repo", repo, "--programs", build, "--cache", os.Getenv("UNDERSTUDY_CACHE"), "--publish", blog)
			total += lastServing(r.status())
			r.down()
		}
		b.ReportMetric(total.Seconds()/float64(b.N), "s/cluster")
		b.ReportMetric(0, "ns/op")
	})
	b.Run("floor", func(b *testing.B) {
		s := floor(b)
		var total time.Duration
		for range b.N {
			r := s.up(b, 0)
			start := r.status().Started
			for _, n := range r.status().Nodes {
				r.served(n.Name, 80)
			}
			total += time.Since(start)
			r.down()
		}
		b.ReportMetric(total.Seconds()/float64(b.N), "s/cluster")
		b.ReportMetric(0, "ns/op")
	})
}

func lastServing(st site.Status) time.Duration {
	var last time.Duration
	for _, n := range st.Nodes {
		last = max(last, n.Serving.Sub(st.Started))
	}
	return last
}

// floor is eight nodes that boot and run Puppet over a handful of resources, by the shell script.
func floor(b *testing.B) side {
	b.Helper()
	roster := strings.Replace(oneBalancer, "nodes: [lb1]\n    understudy: none", "nodes: n[1-8]", 1)
	s := shell(b, ours(b, roster), map[string]string{})
	puppet := filepath.Join(s.repo, "puppet")
	facter := filepath.Join(puppet, "image-files", "etc", "facter", "facter.conf") // a link into what goes
	conf, err := os.ReadFile(facter)
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{"manifests", "site-modules", "data"} {
		if err := os.RemoveAll(filepath.Join(puppet, path)); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.Remove(facter); err != nil {
		b.Fatal(err)
	}
	write(b, facter, string(conf), 0o644)
	for i := range 8 {
		write(b, filepath.Join(puppet, "facts", fmt.Sprintf("n%d.json", i+1)), "{}", 0o644)
	}
	write(b, filepath.Join(puppet, "manifests", "site.pp"), `
package { 'nginx-light': ensure => installed }
file { '/etc/nginx/conf.d/small.conf': content => "# small\n", notify => Service['nginx'] }
service { 'nginx': ensure => running, enable => true }
`, 0o644)
	write(b, filepath.Join(puppet, "environment.conf"), "modulepath = site-modules\n", 0o644)
	return s
}

func write(b *testing.B, path, text string, mode os.FileMode) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		b.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		b.Fatal(err)
	}
}

func copyFile(b *testing.B, from, to string) {
	b.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(from)
	if err != nil {
		b.Fatal(err)
	}
	write(b, to, string(data), info.Mode().Perm())
}

func copyTree(b *testing.B, from, to string) {
	b.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		b.Fatal(err)
	}
}
