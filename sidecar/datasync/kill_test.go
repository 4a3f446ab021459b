//go:build linux

package datasync

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/sidecar/datasync/disturb"
	"understudy/sidecar/datasync/tree"
)

// side says to this test program that it is a source or a mirror, in a process that is to be killed.
const side = "UNDERSTUDY_DATASYNC_SIDE"

func TestMain(m *testing.M) {
	if os.Getenv(side) == "" {
		os.Exit(m.Run())
	}
	if err := beSide(os.Getenv(side), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// beSide runs one side of the directory dir/data on a Unix socket until its standard input ends. The source answers each line with one when
// a barrier has passed.
func beSide(which, dir, socket string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	set := Set{Name: "d", Root: filepath.Join(dir, "data"), Index: filepath.Join(dir, "index"), Accounts: tree.NewAccounts("/etc")}
	if which == "mirror" {
		go func() { _, _ = io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
		m, err := OpenMirror(ctx, quiet(), set)
		if err != nil {
			return err
		}
		for {
			if conn, err := net.Dial("unix", socket); err == nil {
				_ = m.Follow(ctx, conn) // the source was killed
				conn.Close()
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	s, err := OpenSource(quiet(), set, 1, SourceOptions{Retry: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	s.Allow(1 << 20)
	_ = os.Remove(socket) // of a process before this one
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = s.Serve(ctx, "mirror", conn) // the mirror was killed
			s.Allow(1 << 20)
		}
	}()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := s.Barrier(ctx); err != nil {
			return err
		}
		fmt.Println("passed")
	}
	return nil
}

// sideProcess is one that can be killed.
type sideProcess struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startSide(t *testing.T, which, dir, socket string) *sideProcess {
	t.Helper()
	p := &sideProcess{Cmd: exec.Command(os.Args[0], dir, socket)}
	p.Env, p.Stderr = append(os.Environ(), side+"="+which), os.Stderr
	var err error
	p.in, err = p.StdinPipe()
	must(t, err)
	out, err := p.StdoutPipe()
	must(t, err)
	p.out = bufio.NewReader(out)
	must(t, p.Start())
	return p
}

func (p *sideProcess) kill(t *testing.T) {
	t.Helper()
	must(t, p.Process.Kill())
	_ = p.Wait() // it was killed
}

// Law: wherever either side is killed, the mirror is the same tree after the next barrier, and nothing half is left.
func TestTheMirrorIsTheSameTreeWheneverASideIsKilled(t *testing.T) {
	root(t)
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 8))
			dir := t.TempDir()
			dirs := map[string]string{"source": dir + "/s", "mirror": dir + "/m"}
			running := map[string]*sideProcess{}
			for which, at := range dirs {
				must(t, os.MkdirAll(at+"/data", 0o755))
				running[which] = startSide(t, which, at, dir+"/socket")
			}
			defer func() {
				for _, p := range running {
					p.kill(t)
				}
			}()
			for range 5 {
				for range r.IntN(40) {
					disturb.Edit(r, dirs["source"]+"/data", []int{5000, 1 << 20}[r.IntN(2)])
				}
				time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond) // the point at which it is killed
				victim := []string{"source", "mirror"}[r.IntN(2)]
				running[victim].kill(t)
				running[victim] = startSide(t, victim, dirs[victim], dir+"/socket")
			}
			source := running["source"]
			if _, err := io.WriteString(source.in, "\n"); err != nil {
				t.Fatal(err)
			}
			late := time.AfterFunc(30*time.Second, func() { _ = source.Process.Kill() })
			defer late.Stop()
			if said, err := source.out.ReadString('\n'); err != nil || strings.TrimSpace(said) != "passed" {
				t.Fatalf("the barrier: %q, %v", said, err)
			}
			p := pair{t: t, from: Set{Root: dirs["source"] + "/data", Accounts: tree.NewAccounts("/etc")}, to: Set{Root: dirs["mirror"] + "/data"}}
			p.same()
			if left, err := os.ReadDir(dirs["mirror"] + "/data/.understudy/tmp"); err != nil || len(left) > 0 {
				t.Errorf("staged: %v, %v", left, err)
			}
		})
	}
}
