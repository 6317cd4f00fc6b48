package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// child is one process of the benchmark.
type child struct {
	name string
	addr string // host:port
	cmd  *exec.Cmd
}

// start runs a program, which tells its address as listen=HOST:PORT on standard output or standard error.
func start(name string, cmd *exec.Cmd, env ...string) (*child, error) {
	cmd.Env = append(os.Environ(), env...)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c := &child{name: name, cmd: cmd}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if _, rest, ok := strings.Cut(line, "listen="); ok {
			c.addr = strings.Fields(rest)[0]
			break
		}
		if err != nil {
			c.stop()
			return nil, fmt.Errorf("%s did not start: %s", name, line)
		}
		fmt.Fprintf(os.Stderr, "%s: %s", name, line)
	}
	go func() {
		defer r.Close()
		for {
			line, err := lines.ReadString('\n')
			if line != "" && !strings.Contains(line, `"msg":"grant"`) && !strings.Contains(line, "level=INFO") && !strings.HasPrefix(line, "{") {
				fmt.Fprintf(os.Stderr, "%s: %s", name, line)
			}
			if err != nil {
				return
			}
		}
	}()
	return c, nil
}

// startSelf runs this program in another role.
func startSelf(role string, env ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(role, exec.Command(self, "-role", role), env...)
}

func (c *child) stop() {
	if c == nil || c.cmd.Process == nil {
		return
	}
	c.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { c.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		c.cmd.Process.Kill()
		<-done
	}
}

// cpu is the processor time that the process has used: the scheduler's nanoseconds of all its threads. (The ticks of
// /proc/PID/stat are 10 ms long.) Go's runtime doesn't end threads in ordinary work, so none is missing.
func (c *child) cpu() (time.Duration, error) { return cpuOf(c.cmd.Process.Pid) }

func cpuOf(pid int) (time.Duration, error) {
	var total time.Duration
	for _, pid := range family(pid) {
		t, err := cpuOfOne(pid)
		if err != nil {
			return 0, err
		}
		total += t
	}
	return total, nil
}

// family is a process and those that it started, such as the workers of nginx.
func family(pid int) []int {
	all := []int{pid}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		text, _ := os.ReadFile(f)
		for _, word := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(all, family(child)...)
			}
		}
	}
	return all
}

func cpuOfOne(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("no scheduler statistics of process %d in /proc (Linux is needed)", pid)
	}
	var total int64
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		first, _, _ := bytes.Cut(text, []byte(" "))
		n, err := strconv.ParseInt(string(first), 10, 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return time.Duration(total), nil
}

// peak is the largest resident memory so far, in bytes; of several processes the sum.
func (c *child) peak() (total int64, err error) {
	for _, pid := range family(c.cmd.Process.Pid) {
		n, err := peakOfOne(pid)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func peakOfOne(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, io.ErrUnexpectedEOF
}
