package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

func newSetup(env environ) *cobra.Command {
	var sentinel string
	var only []string
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Bring existing indices and templates to what the policy wants: mappings and sentinels",
		Long: "Asks Elasticsearch itself, not the proxy. Every index that a rule claims, backing indices of data streams too, and every template that makes\n" +
			"only such indices, gets the mappings of protected fields that it lacks and, where the rule says sentinel: on or required, the sentinel:\n" +
			"a script in the mapping by which Elasticsearch refuses plain values, whoever writes them.\n\n" +
			"While an index gets its sentinel its writes are blocked, all its documents are read, and it is flushed. If a document holds a plain value,\n" +
			"nothing is added and its id is told. What is done already is left alone.\n\n" +
			"Exits with 0 when all is as the policy wants it, 1 when something was refused or failed, 2 for wrong settings.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			c, pol, err := askCluster(s, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer c.Close()
			if sentinel != "" {
				word, ok := policy.ParseSentinel(sentinel)
				if !ok {
					return usagef("--sentinel can be off, on or required")
				}
				for _, r := range pol.Rules { // the policy is this command's own
					r.Sentinel = word
				}
			}
			return setup(cmd.Context(), env, c, cluster.Setup{Only: only, DryRun: dryRun}, asJSON)
		},
	}
	cmd.Flags().StringVar(&sentinel, "sentinel", "", "off, on or required, instead of what the rules say")
	cmd.Flags().StringSliceVar(&only, "index", nil, "only indices, aliases, data streams and templates that match these patterns")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "look at everything and change nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as one JSON object")
	addSettings(cmd, clusterSettings...)
	return cmd
}

// setup installs and reports. The report is printed also when it ended early.
func setup(ctx context.Context, env environ, c *cluster.Cluster, s cluster.Setup, asJSON bool) error {
	s.Progress = func(text string) { fmt.Fprintln(env.err, text) }
	report, failed := c.Install(ctx, s)
	var err error
	if asJSON {
		enc := json.NewEncoder(env.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(report)
	} else {
		err = printSetup(env.out, report)
	}
	var f *rewrite.Fault
	switch {
	case errors.Is(failed, context.Canceled):
		return errors.New("interrupted; what was not reached is as it was, and setup can be run again")
	case errors.As(failed, &f) && f.Cause != nil:
		return fmt.Errorf("%s (%w)", f.Reason, f.Cause)
	case failed != nil:
		return failed
	case err != nil:
		return err
	case report.Refused > 0:
		return fmt.Errorf("%d indices or templates are not as the policy wants them, see the report", report.Refused)
	}
	return nil
}

// printSetup prints a report for people: a table, then what is to be done by hand.
func printSetup(out io.Writer, r *cluster.SetupReport) error {
	if len(r.Indices)+len(r.Templates) == 0 {
		_, err := fmt.Fprintln(out, "No index and no template is protected by the policy, or none of them exists yet.")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	var todo []string
	for _, t := range r.Templates {
		fmt.Fprintf(w, "%s %s\t%s\t\n", t.Kind, t.Template, t.State)
		if t.Refused != "" {
			todo = append(todo, t.Kind+" "+t.Template+": "+t.Refused)
		}
	}
	for _, i := range r.Indices {
		var sentinels []string
		for _, s := range i.Sentinels {
			sentinels = append(sentinels, "sentinel of "+s.Rule+" "+s.State)
		}
		fmt.Fprintf(w, "index %s\tmapping %s\t%s\n", i.Index, i.Mapping, strings.Join(sentinels, ", "))
		for _, f := range i.Findings {
			where := i.Index
			if f.Field != "" {
				where += ", field " + f.Field
			}
			todo = append(todo, where+": "+f.Problem+"; repair: "+f.Repair)
		}
		if i.Refused != "" {
			text := i.Index + ": " + i.Refused
			if i.Plain > 0 {
				text += fmt.Sprintf(" (%d of them, such as %s)", i.Plain, strings.Join(i.PlainIDs, ", "))
			}
			todo = append(todo, text)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(todo) > 0 {
		fmt.Fprintln(out, "\nTo do:")
	}
	for _, t := range todo {
		if _, err := fmt.Fprintln(out, "* "+t); err != nil {
			return err
		}
	}
	return nil
}
