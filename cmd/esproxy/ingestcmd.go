package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/esproxy/esproxy/internal/ingest"
	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
)

func newIngest(env environ) *cobra.Command {
	var source, index, mapping, checkpoint, deadLetter, format string
	var every time.Duration
	var batch, total int
	cmd := &cobra.Command{
		Use:   "ingest --source URL|FILE|- --index NAME",
		Short: "Pull records from an API, a file or standard input and push them through the proxy",
		Long:  "See docs/ingest.md. Each record is stored under its own id, so that a second run changes nothing. The exit status is 1 when records were rejected.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			log, err := newLogger(s, env.err)
			if err != nil {
				return err
			}
			if source == "" {
				source = s.APIURL
			}
			if source == "" || index == "" {
				return usagef("--source (or API_URL) and --index are needed")
			}
			switch ingest.Format(format) {
			case "", ingest.FormatAuto, ingest.FormatArray, ingest.FormatNDJSON:
			default:
				return usagef("--format must be auto, array or ndjson")
			}
			c, err := newClient(s)
			if err != nil {
				return err
			}
			transport, err := clientTransport(s)
			if err != nil {
				return err
			}
			checkpoint, deadLetter = ingestFiles(source, index, checkpoint, deadLetter)
			opt := ingest.Options{
				Source: source, Index: index, ProxyURL: c.base, Transport: transport,
				Stdin: env.in, SourceAuth: ingest.SourceAuth{Bearer: s.APIToken}, Format: ingest.Format(format),
				Headers:    func() (http.Header, error) { return c.head.Clone(), nil },
				BatchCount: batch, Checkpoint: checkpoint, DeadLetter: deadLetter, Every: every, Total: int64(total),
				Progress: env.err, IsTerminal: isTerminal(env.err), Logger: log,
			}
			if mapping != "" {
				if opt.Mapping, err = ingest.LoadMapping(mapping); err != nil {
					return usageError{err}
				}
			}
			if s.MasterKey != "" {
				pol, err := loadPolicy(s)
				if err != nil {
					return err
				}
				_, ring, err := loadKeyring(s)
				if err != nil {
					return err
				}
				opt.Sealer = newRecordSealer(pol, ring)
			}
			_, err = ingest.Run(cmd.Context(), opt)
			return err
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "address of the API, path of a file, or - for standard input (API_URL)")
	cmd.Flags().StringVar(&index, "index", "", "index, alias or data stream to write to")
	cmd.Flags().StringVar(&mapping, "mapping", "", "mapping file; default the built-in copy of config/ingest.yaml")
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "file that an interrupted run resumes from; default esproxy-INDEX-HASH.checkpoint here, none for none")
	cmd.Flags().StringVar(&deadLetter, "dead-letter", "", "file for rejected records, their protected values sealed (with MASTER_KEY); default esproxy-INDEX-HASH.rejected.ndjson here, none for none")
	cmd.Flags().StringVar(&format, "format", "", "how the source is read: auto, array or ndjson; default what the mapping says")
	cmd.Flags().DurationVar(&every, "every", 0, "read the source again and again, with this pause")
	cmd.Flags().IntVar(&batch, "batch", 0, "largest number of documents in one bulk request; default 1000")
	cmd.Flags().IntVar(&total, "total", 0, "number of records expected, for the progress bar")
	addSettings(cmd, append([]string{"API_TOKEN_FILE", "ESPROXY_LOG_LEVEL", "ESPROXY_LOG_FORMAT"}, clientSettings...)...)
	return cmd
}

// ingestFiles gives the files of a run their default names, which differ by source and index. Neither file is made before
// it is needed.
func ingestFiles(source, index, checkpoint, deadLetter string) (string, string) {
	sum := sha256.Sum256([]byte(source + "\x00" + index))
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '_'
	}, index)
	name = fmt.Sprintf("esproxy-%s-%x", name, sum[:4])
	pick := func(given, standard string) string {
		switch given {
		case "":
			return standard
		case "none":
			return ""
		}
		return given
	}
	return pick(checkpoint, name+".checkpoint"), pick(deadLetter, name+".rejected.ndjson")
}

func newSampleAPI(env environ) *cobra.Command {
	var listen string
	var records int
	cmd := &cobra.Command{
		Use: "sample-api", Short: "Serve invented user records, to try ingest with", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.err, "%d records at http://%s/users\n", records, ln.Addr())
			return serveUntil(cmd.Context(), ln, sampleapi.Handler(records))
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:9290", "address to listen on")
	cmd.Flags().IntVar(&records, "records", 100, "number of records")
	return cmd
}

// serveUntil serves h on ln until ctx ends.
func serveUntil(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func newHealthcheck(env environ) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the admin listener of a proxy on this machine whether it is ready",
		Long:  "Asks /readyz on ESPROXY_ADMIN_LISTEN. The exit status is 0 when the proxy is ready.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if s.AdminListen == "none" {
				return usagef("ESPROXY_ADMIN_LISTEN is none, so nothing can be asked; give the admin listener an address")
			}
			host, port, err := net.SplitHostPort(s.AdminListen)
			if err != nil {
				return usagef("ESPROXY_ADMIN_LISTEN must be host:port")
			}
			if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
				host = "127.0.0.1"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 4*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "GET", "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
			if err != nil {
				return err
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return fmt.Errorf("no answer: %w", err)
			}
			defer res.Body.Close()
			if res.StatusCode != 200 {
				reasons, _ := io.ReadAll(io.LimitReader(res.Body, 1<<12))
				return fmt.Errorf("not ready: %s", strings.ReplaceAll(strings.TrimSpace(string(reasons)), "\n", "; "))
			}
			_, err = fmt.Fprintln(env.out, "ready")
			return err
		},
	}
	addSettings(cmd, "ESPROXY_ADMIN_LISTEN")
	return cmd
}
