package follow

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"understudy/bootstrap/control"
)

// playOrigin serves a directory's repository until its input ends, so that what the server costs is not counted as ours.
func playOrigin(home, scheme string) int {
	o := &origin{home: home}
	server := httptest.NewUnstartedServer(o.handler())
	if scheme == "https" {
		server.StartTLS()
		block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
		if err := os.WriteFile(filepath.Join(home, "ca.pem"), pem.EncodeToMemory(block), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	} else {
		server.Start()
	}
	defer server.Close()
	fmt.Println(server.URL)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	return 0
}

// elsewhere serves the origin from another process.
func (o *origin) elsewhere(scheme string) control.Source {
	o.t.Helper()
	self, err := os.Executable()
	if err != nil {
		o.t.Fatal(err)
	}
	cmd := exec.Command(self, o.home, scheme)
	cmd.Env, cmd.Stderr = []string{"FOLLOW_TEST_PART=origin", "PATH=/usr/bin:/bin"}, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		o.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		o.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			o.t.Error(err)
		}
	})
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		o.t.Fatal(err)
	}
	s := control.Source{URL: strings.TrimSpace(url) + "/origin/.git"}
	if scheme == "https" {
		s.CAFile = filepath.Join(o.home, "ca.pem")
	}
	return s
}

// BenchmarkLook is what it costs to find that nothing was pushed, and by that what an hour at the default pace does.
func BenchmarkLook(b *testing.B) {
	for _, scheme := range []string{"http", "https"} {
		b.Run(scheme, func(b *testing.B) {
			o := newOrigin(b)
			source := o.elsewhere(scheme)
			r := newRig(b, o, func(c *Config) { c.Origins = []control.Source{source} })
			if s := r.once(); s.Trouble != "" {
				b.Fatal(s.Trouble)
			}
			bytes, cpu := r.State().Bytes, used(b)
			for b.Loop() {
				r.once()
			}
			each := float64(r.State().Bytes-bytes) / float64(b.N)
			work := float64((used(b) - cpu).Microseconds()) / float64(b.N)
			hour := float64(time.Hour / DefaultEvery)
			b.ReportMetric(each, "B/look")
			b.ReportMetric(work, "cpu-µs/look")
			b.ReportMetric(each*hour/1000, "kB/hour")
			b.ReportMetric(work*hour/1000, "cpu-ms/hour")
		})
	}
}

// used is the processor time of this process so far.
func used(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
