package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"time"
)

// Reload builds a new State by Config.Reload, reads the listener's certificates anew and puts both in force.
// On an error what was in force stays, and the gauge esproxy_reload_success says so.
func (s *Server) Reload(ctx context.Context) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	err := s.reload(ctx)
	s.failed = err != nil
	if err != nil {
		s.metrics.reloaded(false, s.cfg.Clock.Now())
		s.cfg.Log.Error("reload failed; the former policy and keys stay", "error", err.Error())
		return err
	}
	s.cfg.Log.Info("reloaded")
	return nil
}

func (s *Server) reload(ctx context.Context) error {
	if s.cfg.Reload == nil {
		return errors.New("reload is not configured")
	}
	st, err := s.cfg.Reload(ctx)
	if err != nil {
		return err
	}
	if st == nil {
		return errors.New("reload gave no state")
	}
	if s.certs != nil {
		if err := s.certs.load(); err != nil {
			return err
		}
	}
	s.Swap(st)
	return nil
}

// reloadCerts takes changed certificates over. After a reload that failed it tries the whole of that again: the
// certificates may have been what was wrong, and good ones must not hide that the policy or a key is.
func (s *Server) reloadCerts(ctx context.Context) {
	s.reloading.Lock()
	failed := s.failed
	s.reloading.Unlock()
	if failed {
		_ = s.Reload(ctx) // it logs its errors
		return
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if err := s.certs.load(); err != nil {
		s.metrics.reloaded(false, s.cfg.Clock.Now())
		s.cfg.Log.Error("certificates could not be loaded; the former ones stay", "error", err.Error())
		return
	}
	s.metrics.reloadOK.Set(1)
	s.cfg.Log.Info("certificates reloaded")
}

// Watch calls changed whenever the content of one of files differs from what it was, looking every interval, until
// ctx ends. A file that can't be read counts as unchanged: it may just be being replaced. Times and names of
// files don't count, so it also works where a secret is mounted through links.
func Watch(ctx context.Context, files []string, interval time.Duration, clock Clock, changed func()) {
	if clock == nil {
		clock = systemClock{}
	}
	sums := make([][sha256.Size]byte, len(files))
	look := func() (differs bool) {
		for i, name := range files {
			content, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			if sum := sha256.Sum256(content); sum != sums[i] {
				sums[i], differs = sum, true
			}
			clear(content) // it may be a key
		}
		return differs
	}
	look()
	for {
		select {
		case <-ctx.Done():
			return
		case <-clock.After(interval):
		}
		if look() {
			changed()
		}
	}
}
