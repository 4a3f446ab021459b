//go:build linux

package bench

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/tests/netns/wire"
)

// The other sides are Debian's, from its tree, as their manuals have them. Where there is a choice, it is the one that is quicker.

// tool is a program of the tree that has been prepared in a host and waits to be let go, so that what is measured is not the
// preparation.
type tool struct {
	*wire.Process
	m  *mirrors
	in io.WriteCloser
}

// tool prepares one in a mount namespace of its own, so that nothing is written into the tree: /srv is this host's directory,
// /mnt the configuration.
func (m *mirrors) tool(host string, argv ...string) *tool {
	m.b.Helper()
	tree := wire.Program(m.b, "UNDERSTUDY_TOOLS_TREE", "the tree with rsync, lsyncd and syncthing")
	data := m.source
	if host == mirrorHost {
		data = m.mirror
	}
	cmd := exec.Command("/usr/bin/unshare", append([]string{"--mount", "--propagation", "private", "/bin/sh", "-ec", `
tree=$1 data=$2 conf=$3
shift 3
mount -t tmpfs none "$tree/run"
mkdir "$tree/run/sshd"
mount -t tmpfs none "$tree/tmp"
mount --bind "$data" "$tree/srv"
mount --bind "$conf" "$tree/mnt"
mount --rbind /proc "$tree/proc"
mount --rbind /dev "$tree/dev"
echo prepared
read -r go
exec chroot "$tree" "$@"`, "sh", tree, data, m.conf}, argv...)...)
	cmd.Env = []string{"LANG=C.UTF-8", "HOME=/tmp", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	in, err := cmd.StdinPipe()
	if err != nil {
		m.b.Fatal(err)
	}
	t := &tool{Process: m.Host(host).Start(filepath.Base(argv[0])+"-"+host, cmd), m: m, in: in}
	m.count(host, t.Process)
	t.says("prepared")
	return t
}

// start lets it go.
func (t *tool) start() *tool {
	t.m.b.Helper()
	if _, err := io.WriteString(t.in, "go\n"); err != nil {
		t.m.b.Fatal(err)
	}
	return t
}

// says waits for a text in its output.
func (t *tool) says(text string) {
	t.m.b.Helper()
	wire.Eventually(t.m.b, time.Minute, func() error {
		if strings.Contains(t.Text(), text) {
			return nil
		}
		if t.Over() {
			t.m.b.Fatalf("it has ended:\n%s", t.Text())
		}
		return fmt.Errorf("it has not said %q", text)
	})
}

// run lets it go to its end, which must be a good one, and returns how long that took.
func (t *tool) run() time.Duration {
	t.m.b.Helper()
	began := time.Now()
	t.start()
	if err := t.Ended(t.m.b, 10*time.Minute); err != nil {
		t.m.b.Fatalf("%v:\n%s", err, t.Text())
	}
	return time.Since(began)
}

// listens waits until somebody listens on a port of the mirror's host.
func (m *mirrors) listens(port int) {
	m.b.Helper()
	local := fmt.Sprintf(":%04X 00000000:0000 0A", port) // proc_net(5): local and remote address, state LISTEN
	wire.Eventually(m.b, time.Minute, func() error {
		var found bool
		err := m.Host(mirrorHost).NS.Do(func() error {
			for _, file := range []string{"tcp", "tcp6"} {
				text, err := os.ReadFile("/proc/thread-self/net/" + file)
				if err != nil {
					return err
				}
				found = found || strings.Contains(strings.ReplaceAll(string(text), strings.Repeat("0", 32)+":0000 0A", "00000000:0000 0A"), local)
			}
			return nil
		})
		if err == nil && !found {
			err = fmt.Errorf("nobody listens on port %d", port)
		}
		return err
	})
}

// rsync syncs once: to a daemon on the mirror's host, or over ssh.
type rsync struct {
	options []string
	ssh     bool
}

func (r rsync) serve(m *mirrors) {
	m.b.Helper()
	if r.ssh {
		serveSSH(m)
		return
	}
	serveRsync(m)
}

func serveRsync(m *mirrors) {
	m.b.Helper()
	write(m.b, filepath.Join(m.conf, "rsyncd.conf"), "use chroot = no\nuid = root\ngid = root\n[mirror]\npath = /srv\nread only = no\n", 0o644)
	m.tool(mirrorHost, "/usr/bin/rsync", "--daemon", "--no-detach", "--config=/mnt/rsyncd.conf", "--log-file=/dev/stderr").start()
	m.listens(873)
}

func serveSSH(m *mirrors) {
	m.b.Helper()
	for _, key := range []string{"host", "user"} {
		m.tool(sourceHost, "/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/mnt/"+key).run()
	}
	write(m.b, filepath.Join(m.conf, "sshd_config"), `HostKey /mnt/host
AuthorizedKeysFile /mnt/user.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
`, 0o644)
	m.tool(mirrorHost, "/usr/sbin/sshd", "-D", "-e", "-f", "/mnt/sshd_config").start()
	m.listens(22)
}

func (r rsync) sync(m *mirrors) time.Duration {
	m.b.Helper()
	argv := append([]string{"/usr/bin/rsync", "--archive", "--delete"}, r.options...)
	target := "rsync://" + mirrorAddress + "/mirror/"
	if r.ssh {
		target = "root@" + mirrorAddress + ":/srv/"
		argv = append(argv, "--rsh=ssh -q -i /mnt/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null")
	}
	return m.tool(sourceHost, append(argv, "/srv/", target)...).run()
}

// lsyncd follows by rsync, to the same daemon.
type lsyncd struct {
	delay int // seconds; 0: its default, 15
}

func (l lsyncd) serve(m *mirrors) {
	m.b.Helper()
	serveRsync(m)
}

func (l lsyncd) follow(m *mirrors) *wire.Process {
	m.b.Helper()
	delay := ""
	if l.delay > 0 {
		delay = fmt.Sprintf("\tdelay = %d,\n", l.delay)
	}
	write(m.b, filepath.Join(m.conf, "lsyncd.conf"), fmt.Sprintf(`settings { nodaemon = true }
sync {
	default.rsync,
	source = "/srv/",
	target = "rsync://%s/mirror/",
%s	rsync = { archive = true },
}
`, mirrorAddress, delay), 0o644)
	t := m.tool(sourceHost, "/usr/bin/lsyncd", "/mnt/lsyncd.conf").start()
	t.says("Startup of")
	return t.Process
}

// syncthing follows by itself, on both hosts.
type syncthing struct {
	delay int // seconds; 0: its default, 10
}

// serve makes both identities and starts the mirror's.
func (s syncthing) serve(m *mirrors) {
	m.b.Helper()
	devices := map[string]string{}
	for _, host := range []string{sourceHost, mirrorHost} {
		m.tool(host, "/usr/bin/syncthing", "generate", "--home=/mnt/"+host, "--skip-port-probing").run()
		t := m.tool(host, "/usr/bin/syncthing", "--device-id", "--home=/mnt/"+host)
		t.run()
		lines := strings.Fields(t.Text())
		devices[host] = lines[len(lines)-1]
	}
	s.configure(m, sourceHost, "sendonly", devices[mirrorHost], mirrorAddress)
	s.configure(m, mirrorHost, "receiveonly", devices[sourceHost], sourceAddress)
	for _, dir := range []string{m.source, m.mirror} {
		if err := os.Mkdir(filepath.Join(dir, ".stfolder"), 0o755); err != nil {
			m.b.Fatal(err)
		}
	}
	m.syncthing(mirrorHost)
	m.listens(22000)
}

// configure leaves everything as "syncthing generate" has written it but the folder, the peer, what would leave the two hosts, and
// its low priority. What its file does not name is not at its default but zero: a folder without fsWatcherDelayS is not watched.
func (s syncthing) configure(m *mirrors, host, kind, peer, address string) {
	m.b.Helper()
	path := filepath.Join(m.conf, host, "config.xml")
	text, err := os.ReadFile(path)
	if err != nil {
		m.b.Fatal(err)
	}
	config := string(text)
	for _, change := range [][2]string{
		{` path="/tmp/Sync" type="sendreceive"`, fmt.Sprintf(` path="/srv" type="%s"`, kind)},
		{` fsWatcherDelayS="10"`, fmt.Sprintf(` fsWatcherDelayS="%d"`, cmp.Or(s.delay, 10))},
		{"<minDiskFree", fmt.Sprintf(`<device id="%s"></device><minDiskFree`, peer)},
		{"<gui ", fmt.Sprintf(`<device id="%s" compression="metadata"><address>tcp://%s:22000</address></device><gui `, peer, address)},
		{`<gui enabled="true"`, `<gui enabled="false"`},
		{"<listenAddress>default<", "<listenAddress>tcp://:22000<"},
		{"<globalAnnounceEnabled>true<", "<globalAnnounceEnabled>false<"},
		{"<localAnnounceEnabled>true<", "<localAnnounceEnabled>false<"},
		{"<relaysEnabled>true<", "<relaysEnabled>false<"},
		{"<natEnabled>true<", "<natEnabled>false<"},
		{"<urAccepted>0<", "<urAccepted>-1<"},
		{"<crashReportingEnabled>true<", "<crashReportingEnabled>false<"},
		{"<autoUpgradeIntervalH>12<", "<autoUpgradeIntervalH>0<"},
		{"<setLowPriority>true<", "<setLowPriority>false<"},
	} {
		if !strings.Contains(config, change[0]) {
			m.b.Fatalf("syncthing has another configuration than the benchmark knows, without %q:\n%s", change[0], config)
		}
		config = strings.Replace(config, change[0], change[1], 1)
	}
	write(m.b, path, config, 0o600)
}

// syncthing starts one.
func (m *mirrors) syncthing(host string) *tool {
	m.b.Helper()
	return m.tool(host, "/usr/bin/syncthing", "serve", "--home=/mnt/"+host, "--no-restart", "--no-browser", "--no-upgrade", "--skip-port-probing").start()
}

func (s syncthing) follow(m *mirrors) *wire.Process {
	m.b.Helper()
	return m.syncthing(sourceHost).Process
}

// TestTreesAreComparedByWhatBothSidesKeep keeps the benchmarks' judge honest.
func TestTreesAreComparedByWhatBothSidesKeep(t *testing.T) {
	moment := time.Unix(1_700_000_000, 0)
	tree := func(files map[string]string) string {
		dir := t.TempDir()
		for name, text := range files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, moment, moment); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	source := tree(map[string]string{"a/b": "text", "c": "more"})
	for _, c := range []struct {
		name         string
		mirror       map[string]string
		sizes, bytes string // what is found; empty: nothing
	}{
		{"the same", map[string]string{"a/b": "text", "c": "more"}, "", ""},
		{"what a side keeps for itself", map[string]string{"a/b": "text", "c": "more", ".stfolder/x": "", ".understudy/y": ""}, "", ""},
		{"one missing", map[string]string{"a/b": "text"}, "missing", "missing"},
		{"one too many", map[string]string{"a/b": "text", "c": "more", "d": ""}, "too many", "too many"},
		{"a shorter one", map[string]string{"a/b": "tex", "c": "more"}, "3 bytes", "3 bytes"},
		{"another one", map[string]string{"a/b": "test", "c": "more"}, "", "another file"},
		{"another kind", map[string]string{"a/b": "text", "c/d": "more"}, "too many", "too many"},
	} {
		mirror := tree(c.mirror)
		for how, want := range map[thorough]string{sizes: c.sizes, contents: c.bytes} {
			if err := alike(source, mirror, how); (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", c.name, err, want)
			}
		}
	}
}
