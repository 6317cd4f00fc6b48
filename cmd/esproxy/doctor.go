package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/envelope"
	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/proxy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// clusterSettings are the variables that commands which ask Elasticsearch itself have flags for.
var clusterSettings = []string{
	"ELASTICSEARCH_URL", "ELASTICSEARCH_USERNAME", "ELASTICSEARCH_PASSWORD_FILE", "ELASTICSEARCH_API_KEY_FILE", "ELASTICSEARCH_CA_FILE",
	"ELASTICSEARCH_CA_FINGERPRINT", "ELASTICSEARCH_CLIENT_CERT_FILE", "ELASTICSEARCH_CLIENT_KEY_FILE",
	"ESPROXY_FIELDS", "MASTER_KEY_FILE", "MASTER_KEY_PREVIOUS_FILE", "ESPROXY_ALLOW_PASSPHRASE",
}

// errUnwell makes doctor exit with 1 after its report.
var errUnwell = errors.New("there is something to repair")

func newDoctor(env environ) *cobra.Command {
	var sample string
	var asJSON bool
	var only []string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Report how protected indices stand: mappings, keys, plain values, sentinels",
		Long: "Asks Elasticsearch itself, not the proxy, about every index that the policy protects, and changes nothing. For each field it tells how\n" +
			"many documents lie under which key, how many have no value, and how many a plain one. Documents that a sentinel has counted need not be read;\n" +
			"of the others at most --sample are read for each index. With MASTER_KEY it also tells which keys are loaded; it works without.\n\n" +
			"Exits with 0 when all is well, 1 when there is something to repair or Elasticsearch does not answer, 2 for wrong settings.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n := 0
			if sample != "all" {
				var err error
				if n, err = strconv.Atoi(sample); err != nil || n < 1 || n > maxSample {
					return usagef("--sample is the number of documents to read of each index, 1 to %d, or all", maxSample)
				}
			}
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			return doctor(cmd.Context(), env, s, cluster.Examination{Sample: n, Only: only}, asJSON)
		},
	}
	cmd.Flags().StringVar(&sample, "sample", "1000", "documents to read of each index at most, or all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as one JSON object")
	cmd.Flags().StringSliceVar(&only, "index", nil, "look at indices that match these patterns alone")
	addSettings(cmd, clusterSettings...)
	return cmd
}

// maxSample is the largest page that Elasticsearch gives (index.max_result_window).
const maxSample = 10000

// askCluster makes a Cluster that asks with the settings' credentials. The key is optional.
func askCluster(s *settings, log *slog.Logger) (*cluster.Cluster, *policy.Policy, error) {
	pol, err := loadPolicy(s)
	if err != nil {
		return nil, nil, err
	}
	var ids []string
	if s.MasterKey != "" {
		_, ring, err := loadKeyring(s)
		if err != nil {
			return nil, nil, err
		}
		for _, id := range ring.IDs() {
			ids = append(ids, id.String())
		}
	}
	cfg, err := proxyConfig(s, log, log)
	if err != nil {
		return nil, nil, err
	}
	srv, err := proxy.New(cfg)
	if err != nil {
		return nil, nil, usageError{err}
	}
	return cluster.New(cluster.Config{
		Own: srv.Own(), HasOwn: s.ElasticsearchUsername != "" || s.ElasticsearchAPIKey != "", Policy: func() *policy.Policy { return pol },
		LoadedKeys: ids, Log: log, ViewEvery: -1, Timeout: time.Minute,
	}), pol, nil
}

func doctor(ctx context.Context, env environ, s *settings, x cluster.Examination, asJSON bool) error {
	c, _, err := askCluster(s, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer c.Close()
	x.Describe = describeToken
	report, err := c.Examine(ctx, x)
	if err != nil {
		var f *rewrite.Fault
		if errors.As(err, &f) && f.Cause != nil {
			return fmt.Errorf("%s (%w)", f.Reason, f.Cause)
		}
		return err
	}
	if asJSON {
		enc := json.NewEncoder(env.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(report)
	} else {
		err = printReport(env.out, report)
	}
	if err != nil {
		return err
	}
	if report.Problems > 0 {
		return fmt.Errorf("%w: %d finding(s), see the report", errUnwell, report.Problems)
	}
	return nil
}

// describeToken tells what the header of a sealed value says.
func describeToken(token []byte) (cluster.Key, bool) {
	h, err := envelope.Peek(token)
	if err != nil {
		return cluster.Key{}, false
	}
	k := cluster.Key{ID: h.KeyID.String(), Suite: h.Suite.String()}
	if h.Source == envelope.ScryptPerSubject {
		k.Source = "scrypt-per-subject"
	}
	return k, true
}

// printReport prints a report for people: a table, then what is to be repaired.
func printReport(out io.Writer, r *cluster.Report) error {
	if len(r.Indices) == 0 {
		_, err := fmt.Fprintln(out, "No index is protected by the policy, or none of them exists yet.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "INDEX\tDOCUMENTS\tFIELD\tKEY\tSUITE\tSEALED\tWITHOUT\tPLAIN\tSENTINEL")
	for _, i := range r.Indices {
		sentinels := map[string]string{}
		for _, s := range i.Sentinels {
			sentinels[s.Rule] = s.State
		}
		for _, f := range i.Fields {
			rule, _, _ := strings.Cut(f.Field, ".")
			docs := strconv.FormatInt(i.Documents, 10)
			if f.Counted < i.Documents {
				docs = fmt.Sprintf("%d of %d", f.Counted, i.Documents)
			}
			if len(f.Keys) == 0 {
				fmt.Fprintf(w, "%s\t%s\t%s\t-\t-\t0\t%d\t%d\t%s\n", i.Index, docs, f.Field, f.Without, f.Plain, sentinels[rule])
			}
			for n, k := range f.Keys {
				name := k.ID
				if k.Loaded == "no" {
					name += " (not loaded)"
				}
				suite := k.Suite
				if k.Source != "" {
					suite += " " + k.Source
				}
				if n > 0 {
					fmt.Fprintf(w, "\t\t\t%s\t%s\t%d\t\t\t\n", name, suite, k.Documents)
					continue
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", i.Index, docs, f.Field, name, suite, k.Documents, f.Without, f.Plain, sentinels[rule])
			}
		}
		if len(i.Fields) == 0 {
			fmt.Fprintf(w, "%s\t-\t-\t-\t-\t-\t-\t-\t-\n", i.Index)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	var findings []string
	for _, i := range r.Indices {
		for _, p := range i.Problems {
			findings = append(findings, i.Index+": "+p)
		}
		for _, m := range i.Mapping {
			where := i.Index
			if m.Field != "" {
				where += ", field " + m.Field
			}
			findings = append(findings, where+": "+m.Problem+"; repair: "+m.Repair)
		}
		for _, f := range i.Fields {
			if len(f.Example) > 0 {
				findings = append(findings, i.Index+": plain at "+f.Field+" in documents such as "+strings.Join(f.Example, ", "))
			}
		}
	}
	for _, t := range r.Templates {
		findings = append(findings, "index template "+t.Template+" "+t.Problem)
	}
	for _, p := range r.Pipelines {
		text := "pipeline " + p.Pipeline + ": " + p.Problem
		if len(p.UsedBy) > 0 {
			text += "; used by " + strings.Join(p.UsedBy, ", ")
		}
		findings = append(findings, text)
	}
	if r.Sentinels != "possible" {
		fmt.Fprintln(out, "\nNo sentinels: "+r.Sentinels+".")
	}
	if len(findings) > 0 {
		fmt.Fprintln(out, "\nFindings:")
	}
	for _, f := range findings {
		if _, err := fmt.Fprintln(out, "* "+f); err != nil {
			return err
		}
	}
	return nil
}
