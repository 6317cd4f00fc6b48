package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// answerAge is how old the last answer of a node may be before readiness asks one.
const answerAge = 10 * time.Second

// adminHandler serves the admin listener:
//
//	GET  /healthz   200 while the process serves
//	GET  /readyz    200 when policy and keys are loaded, the data listener is open and not draining, and a
//	                node answered lately; else 503 with the reasons, one a line
//	GET  /metrics   Prometheus text
//	GET  /version   {"version":…,"go":…}
//	POST /-/reload  200, or 500 with the reason
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		reasons := s.unready(r.Context())
		if len(reasons) == 0 {
			fmt.Fprintln(w, "ok")
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		for _, reason := range reasons {
			fmt.Fprintln(w, reason)
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", plainJSON)
		json.NewEncoder(w).Encode(map[string]string{"version": s.cfg.Version, "go": goVersion()})
	})
	mux.HandleFunc("POST /-/reload", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Reload(r.Context()); err != nil {
			http.Error(w, "reload failed: "+err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "reloaded")
	})
	return mux
}

// unready tells why the proxy should get no requests.
func (s *Server) unready(ctx context.Context) (reasons []string) {
	if s.state.Load() == nil {
		reasons = append(reasons, "policy and keys are not loaded")
	}
	if s.draining.Load() {
		reasons = append(reasons, "draining")
	} else if !s.listening.Load() {
		reasons = append(reasons, "not listening")
	}
	if !s.upstreamAnswers(ctx) {
		reasons = append(reasons, "no Elasticsearch node answers")
	}
	return reasons
}

// upstreamAnswers asks a node when none has answered lately. Any status is an answer.
func (s *Server) upstreamAnswers(ctx context.Context) bool {
	s.probing.Lock()
	defer s.probing.Unlock()
	if s.cfg.Clock.Now().Sub(time.Unix(0, s.pool.last.Load())) < answerAge {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, _, err := s.Own().Do(ctx, http.MethodHead, "/", nil, 1<<10)
	return err == nil
}
