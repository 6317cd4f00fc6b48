package test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"testing"
	"time"
)

// adminGet asks the admin listener.
func (s *stack) adminGet(path string) answer {
	s.t.Helper()
	return s.adminDo("GET", path)
}

func (s *stack) adminDo(method, path string) answer {
	s.t.Helper()
	req, err := http.NewRequest(method, s.admin+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := passer.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(b), err}
}

// reload is POST /-/reload.
func (s *stack) reload() answer {
	s.t.Helper()
	return s.adminDo("POST", "/-/reload")
}

// metric is the value of a series, "" when it is not there. name is written as in the exposition.
func (s *stack) metric(name string) string {
	s.t.Helper()
	a := s.must(s.adminGet("/metrics"), 200)
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (.*)$`).FindStringSubmatch(a.body)
	if m == nil {
		return ""
	}
	return m[1]
}

// ended is what a process left that was to end by itself.
type ended struct {
	stdout, stderr string
	code           int
}

// failStart runs another "esproxy serve" with the stack's environment and env over it, which is to fail.
func (s *stack) failStart(env []string) ended {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "serve")
	cmd.Env = append(append([]string(nil), s.env...), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	if ctx.Err() != nil {
		s.t.Error("the proxy started")
	}
	return ended{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// with puts variables over the environment of the stack's next run.
func (s *stack) with(env ...string) { s.env = append(s.env, env...) }

// wait waits for the end of the process and gives how it ended.
func (s *stack) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-s.exited:
		return s.exitErr
	case <-time.After(40 * time.Second):
		t.Fatal("the proxy does not end")
		return nil
	}
}
