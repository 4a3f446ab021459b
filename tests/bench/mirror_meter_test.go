//go:build linux

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"understudy/tests/netns/wire"
)

// meter counts what the processes of a side take, with all that come of them: rsync forks, sshd and syncthing begin sessions and
// process groups of their own. It reads proc(5) only, which is the same under every version of cgroups.
//
// The peak of getrusage(2) is of no use here. Execve carries it over, so a program that the benchmark has started begins with that of
// the benchmark.
type meter struct {
	b     *testing.B
	stop  chan struct{}
	ended sync.WaitGroup
	calm  int // processes when the measurement began

	mu   sync.Mutex
	runs map[string][]*wire.Process // by host
	peak map[string]int64           // bytes
}

// lookEvery is how often the memory is looked at. A process that lives for less may be missed; its CPU is not.
const lookEvery = 20 * time.Millisecond

func newMeter(b *testing.B) *meter {
	t := &meter{b: b, stop: make(chan struct{}), runs: map[string][]*wire.Process{}, peak: map[string]int64{}}
	t.ended.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-t.stop:
				return
			case <-tick.C:
				t.look()
			}
		}
	})
	b.Cleanup(func() {
		close(t.stop)
		t.ended.Wait()
	})
	return t
}

// count counts a process from now on.
func (t *meter) count(host string, p *wire.Process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runs[host] = append(t.runs[host], p)
}

// look notes the memory of each host: of those that live at once, each one's own peak.
func (t *meter) look() (processes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for host, runs := range t.runs {
		var sum int64
		for _, p := range runs {
			if p.Over() {
				continue
			}
			for _, pid := range family(p.Cmd.Process.Pid) {
				sum += residentPeak(pid)
				processes++
			}
		}
		t.peak[host] = max(t.peak[host], sum)
	}
	return processes
}

// cpu is what all have used so far, and those that they have waited for, in seconds.
func (t *meter) cpu() (total float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, runs := range t.runs {
		for _, p := range runs {
			if p.Over() {
				total += (p.Cmd.ProcessState.UserTime() + p.Cmd.ProcessState.SystemTime()).Seconds()
				continue
			}
			for _, pid := range family(p.Cmd.Process.Pid) {
				total += cpuSeconds(pid)
			}
		}
	}
	return total
}

// begin begins a measurement: it returns the CPU used before.
func (t *meter) begin() float64 {
	t.calm = t.look()
	return t.cpu()
}

// total is the CPU used and the peaks of both hosts, in MB, once what was started for the measurement has ended and somebody has
// waited for it, or two seconds later.
func (t *meter) total() (cpu, memory float64) {
	t.b.Helper()
	for deadline := time.Now().Add(2 * time.Second); t.look() > t.calm && time.Now().Before(deadline); {
		<-time.After(lookEvery)
	}
	t.mu.Lock()
	for _, peak := range t.peak {
		memory += float64(peak) / (1 << 20)
	}
	t.mu.Unlock()
	return t.cpu(), memory
}

// family is a process and all that come of it.
func family(pid int) []int {
	all := []int{pid}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil // it has ended
	}
	for _, thread := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, thread.Name()))
		if err != nil {
			continue
		}
		for child := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(child); err == nil {
				all = append(all, family(n)...)
			}
		}
	}
	return all
}

// cpuSeconds is what a process has used, and what those have that it has waited for. One that has ended meanwhile is in the sum of
// another.
func cpuSeconds(pid int) (total float64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ") // proc_pid_stat(5): from the third field on
	f := strings.Fields(rest)
	if len(f) < 15 {
		return 0
	}
	for _, ticks := range f[11:15] { // utime, stime, cutime, cstime; USER_HZ is 100 on every Linux that Debian runs on
		v, _ := strconv.ParseFloat(ticks, 64) // the kernel writes numbers
		total += v / 100
	}
	return total
}

// residentPeak is the most memory that a process has had since its execve, in bytes.
func residentPeak(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\nVmHWM:") // a zombie has none
	if f := strings.Fields(rest); len(f) > 1 {
		kb, _ := strconv.ParseInt(f[0], 10, 64)
		return kb << 10
	}
	return 0
}

// TestTheMeterCountsAllThatComeOfAProcess keeps it honest: about children that live, about those that were waited for, and about the
// memory of the one who started them.
func TestTheMeterCountsAllThatComeOfAProcess(t *testing.T) {
	ballast := make([]byte, 256<<20)
	for i := range ballast {
		ballast[i] = 1
	}
	cmd := exec.Command("/bin/sh", "-c", `
sh -c 'i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done'
(head -c 60m /dev/zero; sleep 1h) | tail -c 40m`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(ballast)
	pid := cmd.Process.Pid
	t.Cleanup(func() {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		_ = cmd.Wait() // killed, and says so
	})
	var memory int64
	wire.Eventually(t, time.Minute, func() error {
		memory = 0
		for _, pid := range family(pid) {
			memory += residentPeak(pid)
		}
		if memory < 40<<20 {
			return fmt.Errorf("the processes %v have had %d bytes, want those that tail keeps", family(pid), memory)
		}
		return nil
	})
	if memory > 100<<20 {
		t.Errorf("%d bytes, want some more than the 40 MB that tail keeps", memory)
	}
	if got := cpuSeconds(pid); got < 0.05 {
		t.Errorf("%v s of CPU, want what the shell's first child has used, too", got)
	}
}
