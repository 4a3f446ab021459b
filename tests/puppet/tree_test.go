// Package puppet_test holds the control repo to its promises without a node: it parses, it is clean, its specs pass, and
// no catalog of any node starts what only the holder of a duty may start, or holds a secret; and publish-package does what it
// says.
//
// The programs (Puppet, puppet-lint, rspec-puppet, reprepro) run inside a Debian 13 tree, in a mount namespace of their own
// in which all that they write is thrown away. `make tools` makes the tree; UNDERSTUDY_TOOLS_TREE says where it is.
package puppet_test

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
	"syscall"
	"testing"
	"time"
)

const (
	treeVariable   = "UNDERSTUDY_TOOLS_TREE"
	insideVariable = "UNDERSTUDY_TOOLS_TREE_CALL" // set: this process is to become call
)

// repo is the checkout, seen from this directory.
const repo = "../.."

// call is one program run inside the tree. The control repo's Puppet side is its working directory, /mnt.
type call struct {
	Args  []string
	Env   []string          // besides PATH, HOME and LANG
	Binds map[string]string // directory inside the tree, made if missing → directory outside, both absolute
	stdin io.Reader

	Tree, Puppet, Scratch string // filled in by run
}

type result struct {
	code           int
	stdout, stderr string
}

func TestMain(m *testing.M) {
	if encoded := os.Getenv(insideVariable); encoded != "" {
		var c call
		err := json.Unmarshal([]byte(encoded), &c)
		if err == nil {
			err = c.become() // returns only an error
		}
		fmt.Fprintln(os.Stderr, "enter the tools tree:", err)
		os.Exit(125)
	}
	os.Exit(m.Run())
}

// run runs c inside the tools tree and returns how it ended. Without a tree the test fails.
func run(t *testing.T, c call) result {
	t.Helper()
	c.Tree = os.Getenv(treeVariable)
	if c.Tree == "" {
		t.Fatalf("%s is not set: `make tools` makes the tree that this test runs Puppet in, `make test` names it", treeVariable)
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts and changes its root directory, so it must run as root: `make test` sees to it")
	}
	var err error
	if c.Puppet, err = filepath.Abs(filepath.Join(repo, "puppet")); err != nil {
		t.Fatal(err)
	}
	c.Scratch = t.TempDir()
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = []string{insideVariable + "=" + string(encoded)}
	cmd.Stdin = c.stdin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || ok && exit.ExitCode() == 125 {
		t.Fatalf("run %q in %s: %v\n%s", c.Args, c.Tree, err, stderr.String())
	}
	return result{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// must runs c and fails the test unless it exits 0 and says nothing on standard error.
func must(t *testing.T, c call) string {
	t.Helper()
	r := run(t, c)
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("%q: exit code %d, want 0 and no complaint\n%s%s", c.Args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// become turns this process, already in a mount namespace of its own, into the program: an overlay over the tree takes what
// is written and goes with the namespace.
func (c call) become() error {
	root := filepath.Join(c.Scratch, "root")
	if err := c.mount(root); err != nil {
		return err
	}
	if err := syscall.Chroot(root); err != nil {
		return fmt.Errorf("chroot %s: %w", root, err)
	}
	if err := os.Chdir("/mnt"); err != nil {
		return err
	}
	env := append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME=/root", "LANG=C.UTF-8"}, c.Env...)
	return fmt.Errorf("exec %s: %w", c.Args[0], syscall.Exec(c.Args[0], c.Args, env))
}

func (c call) mount(root string) error {
	type mount struct {
		what, where, kind string
		flags             uintptr
		options           string
	}
	layer := func(name string) string { return filepath.Join(c.Scratch, name) }
	mounts := []mount{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE, ""},
		{"tmpfs", c.Scratch, "tmpfs", 0, "mode=0755"},
		{"overlay", root, "overlay", 0, "lowerdir=" + c.Tree + ",upperdir=" + layer("upper") + ",workdir=" + layer("work")},
		{"/proc", filepath.Join(root, "proc"), "", syscall.MS_BIND | syscall.MS_REC, ""},
		{"/dev", filepath.Join(root, "dev"), "", syscall.MS_BIND | syscall.MS_REC, ""},
		{c.Puppet, filepath.Join(root, "mnt"), "", syscall.MS_BIND, ""},
	}
	for inside, outside := range c.Binds {
		mounts = append(mounts, mount{outside, filepath.Join(root, inside), "", syscall.MS_BIND, ""})
	}
	for _, m := range mounts {
		if m.kind == "overlay" {
			for _, dir := range []string{layer("upper"), layer("work")} {
				if err := os.Mkdir(dir, 0o755); err != nil {
					return err
				}
			}
		}
		if err := os.MkdirAll(m.where, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(m.what, m.where, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.what, m.where, err)
		}
	}
	return nil
}
