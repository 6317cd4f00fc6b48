package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tidwall/gjson"
	"github.com/tidwall/pretty"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// reader is what get and export share: a client with a grant and the rule to read under.
type reader struct {
	*client
	policy *policy.Policy
	rule   *policy.Rule
	engine rewrite.Engine
}

func newReader(cmd *cobra.Command, rule string) (*reader, error) {
	s, err := loadSettings(cmd)
	if err != nil {
		return nil, err
	}
	pol, err := loadPolicy(s)
	if err != nil {
		return nil, err
	}
	r, err := chooseRule(pol, "rule", rule)
	if err != nil {
		return nil, err
	}
	c, err := newClient(s)
	if err != nil {
		return nil, err
	}
	if err := c.grantFull(s); err != nil {
		return nil, err
	}
	return &reader{client: c, policy: pol, rule: r}, nil
}

// opened fails when a document still holds sealed values.
func (r *reader) opened(doc []byte) error {
	if paths := r.engine.SealedAt(doc, []*policy.Rule{r.rule}); len(paths) > 0 {
		return fmt.Errorf("the values of %s did not open: they were sealed under another key, for another subject, or the grant does not cover them", strings.Join(paths, ", "))
	}
	return nil
}

func newGet(env environ) *cobra.Command {
	var subject, username, rule, index string
	cmd := &cobra.Command{
		Use:   "get --subject NAME",
		Short: "Print the records of one subject, opened",
		Long: "Finds the documents whose subject is NAME through the proxy, and prints each as one JSON object. MASTER_KEY is only used to\n" +
			"make a token of one minute; with ESPROXY_TOKEN it is not needed.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if username != "" {
				if subject != "" && subject != username {
					return usagef("--subject and --username are the same; give one")
				}
				subject = username
			}
			if subject == "" {
				return usagef("--subject is needed")
			}
			r, err := newReader(cmd, rule)
			if err != nil {
				return err
			}
			if r.rule.Subject == "" {
				return usagef("rule %s has no subject; use esproxy export --rule %s", r.rule.Name, r.rule.Name)
			}
			return r.get(cmd.Context(), env, subject, index)
		},
	}
	cmd.Flags().StringVar(&subject, "subject", "", "the subject: the value of the rule's subject field")
	cmd.Flags().StringVar(&username, "username", "", "the same as --subject")
	cmd.Flags().StringVar(&rule, "rule", "", "the rule, where the policy has several")
	cmd.Flags().StringVar(&index, "index", "", "where to look; default the rule's index patterns")
	addSettings(cmd, clientSettings...)
	return cmd
}

// get prints the documents whose subject is exactly subject. The mapping of the subject is the operator's: the
// query finds it as keyword, as text, or with a keyword beside it, and what is only similar is left out here.
func (r *reader) get(ctx context.Context, env environ, subject, index string) error {
	query := map[string]any{"bool": map[string]any{"minimum_should_match": 1, "should": []any{
		map[string]any{"term": map[string]any{r.rule.Subject: subject}},
		map[string]any{"term": map[string]any{r.rule.Subject + ".keyword": subject}},
		map[string]any{"match": map[string]any{r.rule.Subject: map[string]any{"query": subject, "operator": "and"}}},
	}}}
	found := 0
	err := r.each(ctx, index, query, func(source gjson.Result) error {
		if !hasSubject(source, r.rule.SubjectParts, subject) {
			return nil
		}
		if err := r.opened([]byte(source.Raw)); err != nil {
			return err
		}
		found++
		_, err := env.out.Write(pretty.PrettyOptions([]byte(source.Raw), &pretty.Options{Indent: "  ", Width: 0}))
		return err
	})
	if err == nil && found == 0 {
		err = fmt.Errorf("no document has the subject %q at %s", subject, r.rule.Subject)
	}
	return err
}

// each calls visit with the source of every document that query finds; a nil query finds all.
func (r *reader) each(ctx context.Context, index string, query any, visit func(source gjson.Result) error) error {
	body := map[string]any{"size": 500, "sort": []string{"_doc"}}
	if query != nil {
		body["query"] = query
	}
	reply, err := r.do(ctx, "POST", rulePath(r.rule, index)+"/_search?scroll=2m&ignore_unavailable=true", body)
	if err != nil {
		return err
	}
	scroll := ""
	defer func() {
		if scroll != "" {
			// A scroll that is left open ends by itself.
			_, _ = r.do(context.WithoutCancel(ctx), "DELETE", "/_search/scroll", map[string]string{"scroll_id": scroll})
		}
	}()
	for {
		if failed := gjson.GetBytes(reply, "_shards.failed").Int(); failed > 0 {
			return fmt.Errorf("%d shards did not answer", failed)
		}
		scroll = gjson.GetBytes(reply, "_scroll_id").String()
		hits := gjson.GetBytes(reply, "hits.hits").Array()
		if len(hits) == 0 {
			return nil
		}
		for _, hit := range hits {
			if err := visit(hit.Get("_source")); err != nil {
				return err
			}
		}
		if reply, err = r.do(ctx, "POST", "/_search/scroll", map[string]string{"scroll": "2m", "scroll_id": scroll}); err != nil {
			return err
		}
	}
}

// hasSubject reports whether doc has exactly want at the path, nested or dotted.
func hasSubject(doc gjson.Result, parts []string, want string) bool {
	if len(parts) == 0 {
		return (doc.Type == gjson.String || doc.Type == gjson.Number) && doc.String() == want
	}
	if !doc.IsObject() {
		return false
	}
	found := false
	doc.ForEach(func(name, value gjson.Result) bool {
		for n := len(parts); n > 0 && !found; n-- {
			if name.String() == strings.Join(parts[:n], ".") {
				found = hasSubject(value, parts[n:], want)
			}
		}
		return !found
	})
	return found
}

func newExport(env environ) *cobra.Command {
	var rule, index string
	var ndjson bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all records of a rule, opened, as JSON",
		Long:  "Reads every document of the rule's indices through the proxy and writes one JSON array, or one document a line with --ndjson.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := newReader(cmd, rule)
			if err != nil {
				return err
			}
			return r.export(cmd.Context(), env, index, ndjson)
		},
	}
	cmd.Flags().StringVar(&rule, "rule", "", "the rule, where the policy has several")
	cmd.Flags().StringVar(&index, "index", "", "what to read; default the rule's index patterns")
	cmd.Flags().BoolVar(&ndjson, "ndjson", false, "write one document a line")
	addSettings(cmd, clientSettings...)
	return cmd
}

// export writes all documents. An error leaves the array without its end: what was written is then no JSON.
func (r *reader) export(ctx context.Context, env environ, index string, ndjson bool) (err error) {
	out := bufio.NewWriter(env.out)
	defer func() {
		if e := out.Flush(); err == nil {
			err = e
		}
	}()
	n := 0
	err = r.each(ctx, index, nil, func(source gjson.Result) error {
		if err := r.opened([]byte(source.Raw)); err != nil {
			return err
		}
		switch {
		case ndjson:
		case n == 0:
			fmt.Fprint(out, "[\n")
		default:
			fmt.Fprint(out, ",\n")
		}
		out.Write(pretty.Ugly([]byte(source.Raw)))
		if ndjson {
			fmt.Fprint(out, "\n")
		}
		n++
		return nil
	})
	if err != nil {
		return err
	}
	if !ndjson {
		if n == 0 {
			fmt.Fprint(out, "[")
		}
		fmt.Fprint(out, "\n]\n")
	}
	fmt.Fprintf(env.err, "%d documents\n", n)
	return nil
}

func newOpen(env environ) *cobra.Command {
	var scope string
	cmd := &cobra.Command{
		Use:   "open",
		Short: "Open NDJSON from standard input, offline",
		Long: "Reads one JSON object a line, a document or a hit with _source, and writes it with its sealed values opened; all else stays as\n" +
			"it is. Needs MASTER_KEY and the policy. --scope names the rule that the values were sealed under. Without it a hit is\n" +
			"under the rules that its _index belongs to, and a document under the policy's only rule.\n" +
			"The exit status is 1 when a sealed value stayed sealed.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			pol, err := loadPolicy(s)
			if err != nil {
				return err
			}
			_, ring, err := loadKeyring(s)
			if err != nil {
				return err
			}
			var rule *policy.Rule
			if scope != "" {
				if rule, err = chooseRule(pol, "scope", scope); err != nil {
					return err
				}
			}
			engine := &rewrite.Engine{Policy: pol, Opener: opener{ring}, Limits: rewrite.Limits{MaxHit: 64 << 20, MaxDocument: 64 << 20}}
			return openLines(cmd.Context(), env, engine, rule)
		},
	}
	cmd.Flags().StringVar(&scope, "scope", "", "the rule that the values were sealed under")
	addSettings(cmd, "MASTER_KEY_FILE", "MASTER_KEY_PREVIOUS_FILE", "ESPROXY_FIELDS", "ESPROXY_ALLOW_PASSPHRASE")
	return cmd
}

// openLines opens each line of standard input, under rule, or where it is nil under the rules that the line belongs to.
func openLines(ctx context.Context, env environ, engine *rewrite.Engine, rule *policy.Rule) error {
	in := bufio.NewScanner(env.in)
	in.Buffer(nil, 128<<20)
	in.Split(wholeLines)
	out := bufio.NewWriter(env.out)
	defer out.Flush()
	var count unopenedCounter
	n := 1
	for ; in.Scan(); n++ {
		line := in.Bytes()
		if len(bytes.TrimSpace(line)) == 0 {
			out.Write(line)
			continue
		}
		if !json.Valid(line) || bytes.TrimLeft(line, " \t")[0] != '{' {
			return fmt.Errorf("line %d is no JSON object", n)
		}
		doc := gjson.ParseBytes(line)
		rules, err := rulesOf(engine.Policy, rule, doc)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		start, end := bytes.IndexByte(line, '{'), bytes.LastIndexByte(line, '}')+1
		if source := doc.Get("_source"); source.IsObject() {
			start, end = source.Index, source.Index+len(source.Raw)
		}
		out.Write(line[:start])
		if err := engine.OpenDocument(ctx, bytes.NewReader(line[start:end]), out, rules, fullView{}, &count); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		out.Write(line[end:])
	}
	if err := in.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("line %d is longer than 128 MiB", n)
	} else if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if count.n > 0 {
		return fmt.Errorf("%d sealed values stayed sealed: another key, another subject, or a place they were not sealed for", count.n)
	}
	return nil
}

// rulesOf gives the rules that one line may be sealed under.
func rulesOf(pol *policy.Policy, rule *policy.Rule, doc gjson.Result) ([]*policy.Rule, error) {
	if rule != nil {
		return []*policy.Rule{rule}, nil
	}
	if index := doc.Get("_index"); index.Type == gjson.String && doc.Get("_source").IsObject() {
		rules, conflict := pol.Match([]string{index.String()})
		if conflict != nil {
			return nil, usageError{conflict}
		}
		if len(rules) > 0 {
			return rules, nil
		}
	}
	one, err := chooseRule(pol, "scope", "")
	if err != nil {
		return nil, err
	}
	return []*policy.Rule{one}, nil
}

// wholeLines splits at newlines and leaves them at the lines' ends.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// isTerminal reports whether w is a terminal.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
