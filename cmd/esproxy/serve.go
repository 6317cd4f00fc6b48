package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/proxy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// serveSettings are the variables that serve and check have flags for.
var serveSettings = []string{
	"MASTER_KEY_FILE", "MASTER_KEY_PREVIOUS_FILE", "ELASTICSEARCH_URL", "ELASTICSEARCH_USERNAME", "ELASTICSEARCH_PASSWORD_FILE",
	"ELASTICSEARCH_API_KEY_FILE", "ELASTICSEARCH_CA_FILE", "ELASTICSEARCH_CA_FINGERPRINT", "ELASTICSEARCH_CLIENT_CERT_FILE",
	"ELASTICSEARCH_CLIENT_KEY_FILE", "ESPROXY_LISTEN", "ESPROXY_ADMIN_LISTEN", "ESPROXY_FIELDS", "ESPROXY_SUITE", "ESPROXY_TLS_CERT_FILE",
	"ESPROXY_TLS_KEY_FILE", "ESPROXY_TLS_CLIENT_CA_FILE", "ESPROXY_LOG_LEVEL", "ESPROXY_LOG_FORMAT", "ESPROXY_AUDIT_FILE", "ESPROXY_MEMORY",
	"ESPROXY_MAX_DOCUMENT", "ESPROXY_MAX_HIT", "ESPROXY_DRAIN_TIMEOUT", "ESPROXY_RELOAD_INTERVAL", "ESPROXY_ALLOW_PLAIN_GRANTS",
	"ESPROXY_MASTER_KEY_LOGIN", "ESPROXY_ALLOW_PASSPHRASE", "ESPROXY_COMPRESS_OPENED", "ESPROXY_DISCOVERY", "ESPROXY_PUBLISH_ADDRESS", "ESPROXY_AUDIENCE", "ESPROXY_COMPROMISED_KEYS",
}

func newServe(env environ) *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the proxy", Args: noArgs,
		Long: "Runs the proxy until SIGINT or SIGTERM. SIGHUP, POST /-/reload on the admin listener, and a changed policy or key file make it read\n" +
			"policy and keys again; what is wrong then leaves the old ones in force.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			load := func() (*settings, error) { return loadSettings(cmd) }
			warnUnknown(env.err, os.Environ())
			return serve(cmd.Context(), env, load, nil)
		},
	}
	addSettings(cmd, serveSettings...)
	return cmd
}

// newLogger makes the log that settings ask for.
func newLogger(s *settings, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.LogLevel)); err != nil {
		return nil, usagef("ESPROXY_LOG_LEVEL: use debug, info, warn or error")
	}
	opt := &slog.HandlerOptions{Level: level}
	switch s.LogFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opt)), nil
	}
	return nil, usagef("ESPROXY_LOG_FORMAT: use text or json")
}

// proxyConfig is the server's configuration from the settings.
func proxyConfig(s *settings, log, audit *slog.Logger) (proxy.Config, error) {
	cfg := proxy.Config{
		Listen: s.Listen, AdminListen: s.AdminListen, AllowPlainGrants: s.AllowPlainGrants,
		Upstream: proxy.UpstreamTLS{
			CAFile: s.ElasticsearchCAFile, Fingerprint: s.ElasticsearchFingerprint,
			CertFile: s.ElasticsearchCertFile, KeyFile: s.ElasticsearchKeyFile,
		},
		Own:    proxy.Credentials{Username: s.ElasticsearchUsername, Password: s.ElasticsearchPassword, APIKey: s.ElasticsearchAPIKey},
		Memory: int64(s.Memory), DrainTimeout: s.DrainTimeout, CompressOpened: s.CompressOpened,
		Log: log, Audit: audit, Version: version(),
	}
	if s.AdminListen == "none" {
		cfg.AdminListen = ""
	}
	for _, u := range s.ElasticsearchURL {
		if u = strings.TrimSpace(u); u != "" {
			cfg.Nodes = append(cfg.Nodes, u)
		}
	}
	if (s.TLSCertFile == "") != (s.TLSKeyFile == "") {
		return cfg, usagef("ESPROXY_TLS_CERT_FILE and ESPROXY_TLS_KEY_FILE go together; set both")
	}
	if (s.ElasticsearchCertFile == "") != (s.ElasticsearchKeyFile == "") {
		return cfg, usagef("ELASTICSEARCH_CLIENT_CERT_FILE and ELASTICSEARCH_CLIENT_KEY_FILE go together; set both")
	}
	if s.TLSCertFile != "" {
		cfg.TLS = &proxy.ServerTLS{CertFile: s.TLSCertFile, KeyFile: s.TLSKeyFile, ClientCAFile: s.TLSClientCAFile}
	} else if s.TLSClientCAFile != "" {
		return cfg, usagef("ESPROXY_TLS_CLIENT_CA_FILE needs ESPROXY_TLS_CERT_FILE and ESPROXY_TLS_KEY_FILE")
	}
	if s.MaxDocument > (s.Memory-1<<20)/3 || s.MaxHit > s.Memory/2 {
		return cfg, usagef("ESPROXY_MEMORY (%s) must be at least 1 MiB more than three times ESPROXY_MAX_DOCUMENT, and twice ESPROXY_MAX_HIT: a document is held with its sealed form", text(s.Memory))
	}
	return cfg, nil
}

func text(s size) string { b, _ := s.MarshalText(); return string(b) }

// setMemoryLimit makes the collector work harder as the heap nears what bodies may take and a base of 24 MiB, and less before
// that. GOMEMLIMIT and GOGC stand over it.
func setMemoryLimit(s *settings) {
	// Little is alive between two collections, so at Go's 100 they come every 4 MiB: some 1,600 documents in the
	// GCM suite, whose cipher states are garbage. A fourth of the ballast, 16 MiB, is put between them, which saves about a tenth of the CPU
	// of a bulk and more of an opened reply. Nobody touches the ballast, so it takes no memory; and as it is large, what a body holds
	// counts for 1.25 of it, where GOGC=400 without one took five times as much, and 16 MiB of it with GOGC=100 twice.
	if os.Getenv("GOGC") == "" {
		ballast = make([]byte, 64<<20)
		debug.SetGCPercent(25)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(s.Memory) + 24<<20 + int64(len(ballast))) // which the runtime counts all the same
	}
}

var ballast []byte

// viewGrace is how long a replaced view of the cluster still answers requests that began under it.
const viewGrace = 10 * time.Minute

// serve runs the proxy until ctx ends. started, if not nil, is called when it listens.
func serve(ctx context.Context, env environ, load func() (*settings, error), started func(*proxy.Server, *core)) error {
	s, err := load()
	if err != nil {
		return err
	}
	watched := []string{s.Fields}
	for _, f := range []string{s.MasterKeyFile, s.PreviousFile} {
		if f != "" {
			watched = append(watched, f)
		}
	}
	watch := proxy.NewWatch(watched)
	log, err := newLogger(s, env.err)
	if err != nil {
		return err
	}
	auditTo := env.err
	if s.AuditFile != "" {
		f, err := os.OpenFile(s.AuditFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return usagef("ESPROXY_AUDIT_FILE: %w", err)
		}
		defer f.Close()
		auditTo = f
	}
	cfg, err := proxyConfig(s, log, slog.New(slog.NewJSONHandler(auditTo, nil)))
	if err != nil {
		return err
	}
	setMemoryLimit(s)

	var mu sync.Mutex
	var current *core
	var views []*cluster.Cluster
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		for _, v := range views {
			v.Close()
		}
	}()
	ctx, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()

	var srv *proxy.Server
	turns := &rewrite.Turns{}
	cfg.Reload = func(context.Context) (*proxy.State, error) {
		s, err := load()
		if err != nil {
			return nil, err
		}
		c, err := newCore(s, srv, turns, log)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		old := current.cluster
		current = c
		views = append(views, c.cluster)
		// Requests in flight still ask the old view.
		time.AfterFunc(viewGrace, func() {
			old.Close()
			mu.Lock()
			defer mu.Unlock()
			views = slices.DeleteFunc(views, func(v *cluster.Cluster) bool { return v == old })
		})
		go checkStored(ctx, c, log) // ends with ctx; a reload waits for no answer of the cluster
		return c.state, nil
	}
	if srv, err = proxy.New(cfg); err != nil {
		return usageError{err}
	}
	first, err := newCore(s, srv, turns, log)
	if err != nil {
		return err
	}
	current, views = first, append(views, first.cluster)
	srv.Swap(first.state)

	reload := func() { _ = srv.Reload(ctx) } // it logs its errors
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	work.Go(func() {
		for {
			select {
			case <-hup:
				reload()
			case <-ctx.Done():
				return
			}
		}
	})
	if s.ReloadInterval > 0 {
		work.Go(func() { watch.Run(ctx, s.ReloadInterval, nil, reload) })
	}
	work.Go(func() {
		select {
		case <-srv.Started():
			if started != nil {
				started(srv, first)
			}
			checkStored(ctx, first, log)
		case <-ctx.Done():
		}
	})
	if err := srv.Run(ctx); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

func newCheck(env environ) *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Check policy and settings without serving, and print what is protected", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			warnUnknown(env.err, os.Environ())
			pol, err := loadPolicy(s)
			if err != nil {
				return err
			}
			if _, err := newLogger(s, io.Discard); err != nil {
				return err
			}
			cfg, err := proxyConfig(s, nil, nil)
			if err != nil {
				return err
			}
			if _, err := publishAddress(s); err != nil {
				return err
			}
			if _, err := proxy.New(cfg); err != nil {
				return usageError{err}
			}
			printPolicy(env.out, pol)
			if s.MasterKey == "" {
				fmt.Fprintln(env.err, "esproxy: MASTER_KEY is not set, so it was not checked")
				return nil
			}
			key, ring, err := loadKeyring(s)
			if err != nil {
				return err
			}
			if err := checkKeyID(pol, key); err != nil {
				return err
			}
			fmt.Fprintf(env.out, "key id %s, suite %s\n", key.ID(), ring.Suite())
			return nil
		},
	}
	addSettings(cmd, serveSettings...)
	return cmd
}
