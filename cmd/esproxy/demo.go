//go:build !nodevnode

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/tidwall/pretty"

	"github.com/esproxy/esproxy/config"
	"github.com/esproxy/esproxy/internal/access"
	"github.com/esproxy/esproxy/internal/devnode"
	"github.com/esproxy/esproxy/internal/envelope"
	"github.com/esproxy/esproxy/internal/ingest"
	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
	"github.com/esproxy/esproxy/internal/proxy"
)

func newDemo(env environ) *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show everything on this machine: a node, an API, an ingest, and three ways to see one record",
		Long: "Starts a small embedded Elasticsearch-compatible node, a sample API and the proxy on loopback, all in this process and in memory, pulls\n" +
			"100 records through the proxy, and shows one of them without a grant, with the grant full and with the grant support.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return demo(cmd.Context(), env, once) },
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after showing the record, instead of serving until Ctrl-C")
	return cmd
}

const (
	demoRecords = 100
	demoIndex   = "user"
)

func demo(ctx context.Context, env environ, once bool) error {
	ctx, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()

	node, err := devnode.New(devnode.Options{})
	if err != nil {
		return err
	}
	defer node.Close()
	listen := func(h http.Handler) (string, error) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		work.Go(func() {
			if err := serveUntil(ctx, ln, h); err != nil {
				fmt.Fprintf(env.err, "esproxy: demo: %v\n", err)
				stop()
			}
		})
		return "http://" + ln.Addr().String(), nil
	}
	nodeURL, err := listen(node)
	if err != nil {
		return err
	}
	apiURL, err := listen(sampleapi.Handler(demoRecords))
	if err != nil {
		return err
	}

	dir, err := os.MkdirTemp("", "esproxy-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fields := filepath.Join(dir, "fields.yaml")
	if err := os.WriteFile(fields, config.Fields, 0o600); err != nil {
		return err
	}
	master, err := envelope.GenerateKey()
	if err != nil {
		return err
	}
	s := &settings{
		MasterKey: master, ElasticsearchURL: []string{nodeURL}, Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Fields: fields,
		LogLevel: "warn", LogFormat: "text", Memory: 64 << 20, MaxDocument: 16 << 20, MaxHit: 16 << 20, DrainTimeout: 5 * time.Second,
		AuditFile: filepath.Join(dir, "audit.log"),
	}
	if !once {
		// The usual port, so that the printed commands stay good from one demo to the next.
		if ln, err := net.Listen("tcp", "127.0.0.1:9280"); err == nil {
			ln.Close()
			s.Listen = "127.0.0.1:9280"
		}
	}
	type up struct {
		srv *proxy.Server
		c   *core
	}
	started := make(chan up, 1)
	failed := make(chan error, 1)
	work.Go(func() {
		failed <- serve(ctx, env, func() (*settings, error) { return s, nil }, func(srv *proxy.Server, c *core) { started <- up{srv, c} })
	})
	var p up
	select {
	case p = <-started:
	case err := <-failed:
		return err
	}
	proxyURL := "http://" + p.srv.Addr().String()
	fmt.Fprintf(env.out, "Embedded node   %s   (what Elasticsearch stores)\nSample API      %s/users   (%d invented records)\nesproxy         %s\n\n", nodeURL, apiURL, demoRecords, proxyURL)

	log, err := newLogger(s, env.err)
	if err != nil {
		return err
	}
	if _, err := ingest.Run(ctx, ingest.Options{
		Source: apiURL + "/users", Index: demoIndex, ProxyURL: proxyURL, Total: demoRecords,
		Progress: env.err, IsTerminal: isTerminal(env.err), Logger: log,
	}); err != nil {
		return err
	}
	if err := showDemo(ctx, env, p.c, proxyURL); err != nil {
		return err
	}
	if once {
		return nil
	}
	fmt.Fprintf(env.out, "\nServing until Ctrl-C.\n")
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// showDemo prints one record as each kind of caller sees it.
func showDemo(ctx context.Context, env environ, c *core, proxyURL string) error {
	path := "/" + demoIndex + "/_search?q=username:Ana&filter_path=hits.hits._index,hits.hits._id,hits.hits._source"
	show := func(title, grant string) error {
		cl := &client{base: proxyURL, http: http.DefaultClient, head: http.Header{}}
		curl := "curl -s '" + proxyURL + path + "'"
		if grant != "" {
			now := time.Now()
			token, err := access.Mint(access.Claims{
				Who: "demo", Grant: grant, Audience: access.DefaultAudience, KeyID: c.key.ID(),
				Issued: now, NotBefore: now, Expires: now.Add(8 * time.Hour),
			}, c.key.ID(), c.key.TokenKey())
			if err != nil {
				return err
			}
			cl.token = func() (string, error) { return token, nil }
			curl += " -H 'X-Esproxy-Authorization: Bearer " + token + "'"
		}
		reply, err := cl.do(ctx, "GET", path, nil)
		if err != nil {
			return err
		}
		fmt.Fprintf(env.out, "\n%s\n\n%s\n  %s\n", title, pretty.PrettyOptions(reply, &pretty.Options{Indent: "  ", Prefix: "  "}), curl)
		return nil
	}
	if err := show("As Kibana and every caller without a grant sees it: what Elasticsearch stores, ciphertext.", ""); err != nil {
		return err
	}
	if err := show("For a caller with the grant full.", "full"); err != nil {
		return err
	}
	return show("For a caller with the grant support, which shows masks.", "support")
}
