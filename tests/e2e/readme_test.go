//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// readmeCommands are the commands in the README's shell blocks, without comments.
func readmeCommands(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repo(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	shell := false
	for line := range strings.SplitSeq(string(data), "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			shell = line == "```sh"
		case shell:
			command, _, _ := strings.Cut(line, "#")
			if command = strings.TrimSpace(command); command != "" {
				commands = append(commands, command)
			}
		}
	}
	return commands
}

// TestReadmeCommandsDoWhatTheySay runs them in their order, on a cloud and a port of its own. `make
// test` is the one that is running this.
func TestReadmeCommandsDoWhatTheySay(t *testing.T) {
	name, port := fmt.Sprintf("readme%d", os.Getpid()), freePort(t)
	blog := func() error {
		client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Get("http://" + port + "/")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("the blog answers %s", res.Status)
		}
		return nil
	}
	soon := func(f func() error) error {
		deadline := time.Now().Add(30 * time.Second)
		err := f()
		for err != nil && time.Now().Before(deadline) {
			err = f() // a try takes its time: the address is silent for as long as it moves
		}
		return err
	}
	after := map[string]func(out string) error{
		"make demo": func(out string) error {
			if err := contains(out, "8 nodes serve", "destroyed; the cluster has ", "\nredundant again after ", "make down"); err != nil {
				return err
			}
			return soon(blog) // HAProxy checks the web nodes first
		},
		"make test":                          nil,
		"sudo build/understudy local status": func(out string) error { return contains(out, "web2", "serving", "up ") },
		"sudo build/understudy local exec web1 -- systemctl status nginx": func(out string) error { return contains(out, "active (running)") },
		"sudo build/understudy status --local demo":                       func(out string) error { return contains(out, "is redundant", "lb1", "primary", "8 of 8 members heard") },
		"sudo build/understudy sync --wait --local demo":                  func(out string) error { return contains(out, "mail: everything written", "repo: everything written") },
		"sudo build/understudy apply --wait --local demo":                 func(out string) error { return contains(out, "every node has commit ") },
		"sudo build/understudy runs --local demo":                         func(out string) error { return contains(out, "Puppet ") },
		"sudo build/understudy switchover lb --local demo":                func(out string) error { return soon(blog) },
		"sudo build/understudy local destroy lb1":                         func(out string) error { return soon(blog) }, // lb2 has the duty, or takes it
		"sudo build/understudy incidents --local demo": func(string) error {
			return soon(func() error { // whoever coordinates now writes it down in a second
				out, err := try(t, "incidents", "--local", name)
				return errors.Join(err, contains(out, "lb1 (lb) was lost", "taken over"))
			})
		},
		"sudo build/understudy status --local demo --wait redundant": func(out string) error { return contains(out, "is redundant") },
		"sudo build/understudy chaos --local demo --wait 1m":         func(out string) error { return contains(out, "picked with seed", "\nredundant again after ") },
		"make down": func(out string) error {
			if left := leftovers(t, name); len(left) > 0 {
				return fmt.Errorf("there is still %s", strings.Join(left, "; "))
			}
			return contains(out, "is down; what stays")
		},
	}
	t.Cleanup(func() { try(t, "local", "down", "--name", name) })
	commands := readmeCommands(t)
	for _, c := range commands {
		check, known := after[c]
		if !known {
			t.Errorf("the README's command %q is not known to this test", c)
		}
		if check == nil {
			continue
		}
		args := strings.Fields(strings.TrimPrefix(c, "sudo "))
		switch args[0] {
		case "make":
			args = append(args, "NAME="+name, "FORWARDS=--forward "+port+"=www:80", "BUILD="+os.Getenv("UNDERSTUDY_BUILD"), "CACHE="+os.Getenv("UNDERSTUDY_CACHE"))
		default:
			args[0] = program(t)
			if i := slices.Index(args, "demo"); i > 0 {
				args[i] = name
			} else {
				args = slices.Insert(args, 3, "--name="+name)
			}
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = repo(t)
		cmd.Env = append(os.Environ(), "HOME=/root")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
		if err := check(string(out)); err != nil {
			t.Fatalf("after %s: %v", c, err)
		}
	}
	for c := range after {
		if !slices.Contains(commands, c) {
			t.Errorf("this test knows %q, which is not in the README any more", c)
		}
	}
}
