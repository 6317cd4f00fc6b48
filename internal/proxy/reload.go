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

// Watch looks whether the content of files changes. A file that can't be read counts as unchanged: it may just be being
// replaced. Times and names of files don't count, so it also works where a secret is mounted through links.
type Watch struct {
	files []string
	sums  [][sha256.Size]byte
}

// NewWatch notes what is in files. It is to be made before they are read for use: then no change falls in between.
func NewWatch(files []string) *Watch {
	w := &Watch{files: files, sums: make([][sha256.Size]byte, len(files))}
	w.look()
	return w
}

// look reports whether some file has another content than at the last look.
func (w *Watch) look() (differs bool) {
	for i, name := range w.files {
		content, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if sum := sha256.Sum256(content); sum != w.sums[i] {
			w.sums[i], differs = sum, true
		}
		clear(content) // it may be a key
	}
	return differs
}

// Run looks every interval and calls changed when there is a difference, until ctx ends. A nil clock is the system's.
func (w *Watch) Run(ctx context.Context, interval time.Duration, clock Clock, changed func()) {
	if clock == nil {
		clock = systemClock{}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-clock.After(interval):
		}
		if w.look() {
			changed()
		}
	}
}
