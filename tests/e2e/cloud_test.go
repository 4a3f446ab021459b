//go:build linux

// Package e2e holds the promises that only real nodes can show: machines with systemd that boot from
// the image, find their role by their hostname, and serve. One cluster is shared by all tests that
// leave it as they found it.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// program is the built understudy binary; UNDERSTUDY_BUILD says where the Makefile put it.
func program(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("UNDERSTUDY_BUILD")
	if dir == "" || os.Geteuid() != 0 {
		t.Fatal("these tests boot real nodes with the built programs, as root: run them with make test")
	}
	return filepath.Join(dir, "understudy")
}

// understudy runs a command of ours and returns what it printed.
func understudy(t testing.TB, args ...string) string {
	t.Helper()
	out, err := try(t, args...)
	if err != nil {
		t.Fatalf("understudy %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func try(t testing.TB, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t), args...)
	cmd.Env = append(os.Environ(), "HOME=/root")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func cacheFlag() string { return "--cache=" + os.Getenv("UNDERSTUDY_CACHE") }

func repo(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// handedOut are the ports that freePort has given away.
var handedOut = map[int]bool{}

// freePort finds an address on the host that nobody listens on, each time another one. It lies below the range from which the kernel
// takes ports for connections by itself (ip(7), ip_local_port_range), so that none takes it until it is used.
func freePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		if handedOut[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue // somebody else has it
		}
		handedOut[port] = true
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return l.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}

// cluster is a local cloud with the reference cluster serving in it.
type cluster struct {
	name  string
	ports map[string]string // what is forwarded: target → address on the host
}

var shared struct {
	once sync.Once
	c    *cluster
	err  error
}

// sharedCluster brings the reference cluster up on first use, with the blog published.
func sharedCluster(t *testing.T) *cluster {
	t.Helper()
	shared.once.Do(func() {
		shared.c = &cluster{name: fmt.Sprintf("e2e%d", os.Getpid()), ports: map[string]string{}} // torn down also when coming up fails
		shared.err = shared.c.up(t)
	})
	if shared.err != nil {
		t.Fatalf("the cluster does not come up: %v", shared.err)
	}
	shared.c.aftermath(t)
	return shared.c
}

// newCluster brings up another one, for what cannot be made good again. It goes down with the test.
func newCluster(t *testing.T, name string) *cluster {
	t.Helper()
	c := &cluster{name: fmt.Sprintf("%s%d", name, os.Getpid()), ports: map[string]string{}}
	t.Cleanup(func() {
		if out, err := try(t, "local", "down", "--name", c.name); err != nil {
			t.Errorf("take the cluster down: %v\n%s", err, out)
		}
	})
	c.aftermath(t) // before it goes down
	if err := c.up(t); err != nil {
		t.Fatalf("the cluster does not come up: %v", err)
	}
	return c
}

// up brings the cluster up, with the blog published and ports forwarded.
func (c *cluster) up(t *testing.T) error {
	t.Helper()
	args := []string{"local", "up", "--name", c.name, "--repo", repo(t), cacheFlag(), "--publish", blogPackage(t)}
	for _, target := range []string{"www:80", "mail:25", "mail:587", "mail:993", "10.77.0.1:8000", "control.understudy.internal:3000"} {
		c.ports[target] = freePort(t)
		args = append(args, "--forward", c.ports[target]+"="+target)
	}
	out, err := try(t, args...)
	t.Log(out)
	return err
}

func TestMain(m *testing.M) {
	code := m.Run()
	also := func(name string, test func(*testing.T)) {
		if !testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: name, F: test}}) {
			code = 1
		}
	}
	if *long {
		also("TestAConfirmedPushRemovesANode", aConfirmedPushRemovesANode)
	} else {
		fmt.Println("did not run: the removal of a node, and the survivors of all roles but one (make test-long)")
	}
	if shared.c != nil && shared.err == nil {
		// After all others, whichever they were: what they made the cluster say is what is searched.
		also("TestTheClusterKeepsItsSecrets", shared.c.keepsItsSecrets)
	}
	if shared.c != nil {
		cmd := exec.Command(filepath.Join(os.Getenv("UNDERSTUDY_BUILD"), "understudy"), "local", "down", "--name", shared.c.name)
		cmd.Env = append(os.Environ(), "HOME=/root")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "take the cluster down: %v\n%s\n", err, out)
			code = 1
		}
	}
	os.Exit(code)
}

func blogPackage(t testing.TB) string {
	t.Helper()
	return buildPackage(t, filepath.Join(repo(t), "tests", "blog"))
}

// buildPackage makes a .deb of a tree that has a DEBIAN directory.
func buildPackage(t testing.TB, tree string) string {
	t.Helper()
	deb := filepath.Join(t.TempDir(), filepath.Base(tree)+".deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", tree, deb).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	return deb
}

// on runs a command on a node and fails the test unless it ends with 0.
func (c *cluster) on(t testing.TB, node string, argv ...string) string {
	t.Helper()
	out, code := c.run(t, node, argv...)
	if code != 0 {
		t.Fatalf("%s: %s: status %d\n%s", node, strings.Join(argv, " "), code, out)
	}
	return out
}

// run runs a command on a node and returns its output and exit status.
func (c *cluster) run(t testing.TB, node string, argv ...string) (string, int) {
	t.Helper()
	out, err := try(t, append([]string{"local", "exec", "--name", c.name, node, "--"}, argv...)...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out, exit.ExitCode()
	}
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", node, strings.Join(argv, " "), err, out)
	}
	return out, 0
}

// node is what the tests read of `local status --json`.
type node struct {
	Name, Role, Address string
	Machine, Leader     int
	First, Power        bool
}

type status struct {
	Serving                  bool
	Cluster, Operator, Relay string
	TokenFile                string `json:"token_file"`
	Nodes                    []node
}

func (c *cluster) status(t testing.TB) status {
	t.Helper()
	out, err := try(t, "local", "status", "--name", c.name, "--json")
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 3) {
		t.Fatalf("status: %v\n%s", err, out)
	}
	var st status
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		t.Fatalf("status: %v\n%s", err, out)
	}
	return st
}

// eventually asks f until it gives nil; the last error fails the test after limit.
func eventually(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still not so after %v: %v", limit, err)
		}
		<-tick.C
	}
}

// contains tells whether out has all of want.
func contains(out string, want ...string) error {
	for _, w := range want {
		if !bytes.Contains([]byte(out), []byte(w)) {
			return fmt.Errorf("%q is not in:\n%s", w, out)
		}
	}
	return nil
}
