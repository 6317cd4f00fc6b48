package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
)

const (
	maxSampled  = 16 << 20 // bytes of one reply with stored documents
	maxTargets  = 10       // targets named in one refusal
	keyCheckers = 4        // questions at once at the start
)

// tokenStart begins every sealed value, see docs/envelope.md.
const tokenStart = `"esp1.`

// CheckKeys reads some stored documents of every protected index and data stream in the cluster. It gives 503
// FaultWrongKey when a target holds sealed values and none under a loaded key, and else 503 FaultUnknown
// when the cluster did not answer. What the proxy's own credentials may not read is skipped with one warning.
func (c *Cluster) CheckKeys(ctx context.Context) error {
	if c.policy == nil || c.keyID == nil {
		return nil
	}
	p := c.policy()
	if p == nil {
		return nil
	}
	v, err := c.fresh(ctx)
	if err != nil {
		return err
	}
	var targets []string
	for n := range v.streams {
		targets = append(targets, n)
	}
	for n, i := range v.indices {
		if i.stream == "" {
			targets = append(targets, n)
		}
	}
	slices.Sort(targets)
	faults := make([]error, len(targets))
	var g errgroup.Group
	g.SetLimit(keyCheckers)
	for i, name := range targets {
		r, _ := v.resolve(name, false)
		rules, _ := p.Match(r.Names) // of conflicting rules those that apply to it are told by the requests
		if len(rules) == 0 {
			continue
		}
		g.Go(func() error {
			err := c.checkKeys(ctx, nil, name, rules)
			if f, ok := err.(*rewrite.Fault); ok && f.Type == FaultWrongKey {
				faults[i] = err
				return nil
			}
			return err
		})
	}
	lost := g.Wait()
	faults = slices.DeleteFunc(faults, func(err error) bool { return err == nil })
	if len(faults) == 0 {
		return lost
	}
	first := *faults[0].(*rewrite.Fault)
	if len(faults) > 1 {
		first.Reason += "; the same holds for other targets"
	}
	first.Cause = errors.Join(faults[:min(len(faults), maxTargets)]...)
	return &first
}

// checkKeys reads up to 50 stored documents of a target for key ids.
func (c *Cluster) checkKeys(ctx context.Context, caller rewrite.Caller, name string, rules []*policy.Rule) error {
	if c.keyID == nil {
		return nil
	}
	var paths []string
	for _, r := range rules {
		for _, f := range r.Fields {
			if f.Mode == policy.Encrypt {
				paths = append(paths, f.Path)
			}
		}
	}
	if len(paths) == 0 {
		return nil
	}
	reply, err := c.sample(ctx, caller, name, paths)
	if err != nil || reply == nil {
		return err
	}
	seen := map[string]struct{}{}
	for _, hit := range gjson.GetBytes(reply, "hits.hits").Array() {
		if c.scanKeys(seen, hit.Get("_source").Raw) {
			return nil
		}
	}
	if len(seen) == 0 {
		return nil
	}
	loaded := make([]string, 0, len(c.loaded))
	for id := range c.loaded {
		loaded = append(loaded, id)
	}
	slices.Sort(loaded)
	return &rewrite.Fault{Status: http.StatusServiceUnavailable, Type: FaultWrongKey,
		Reason: "the values stored in [" + name + "] are sealed under key id " + strings.Join(sorted(seen), ", ") + ", and the proxy has key id " +
			strings.Join(loaded, ", ") + " loaded; nothing was written. Start the proxy with the MASTER_KEY that those values were written with, " +
			"or add it as MASTER_KEY_PREVIOUS"}
}

// scanKeys adds the key ids of all sealed values in a source to seen, and reports whether one is loaded.
func (c *Cluster) scanKeys(seen map[string]struct{}, source string) bool {
	for {
		i := strings.Index(source, tokenStart)
		if i < 0 {
			return false
		}
		source = source[i+1:]
		end := strings.IndexByte(source, '"')
		if end < 0 {
			return false
		}
		if id, ok := c.keyID([]byte(source[:end])); ok {
			if c.loaded[id] {
				return true
			}
			seen[id] = struct{}{}
		}
		source = source[end:]
	}
}

// sample reads up to 50 documents, fewer when they are too long, with the proxy's own credentials or the caller's. It
// gives nil when neither may read, or when there is nothing to read.
func (c *Cluster) sample(ctx context.Context, caller rewrite.Caller, name string, paths []string) ([]byte, error) {
	var lostErr error
	for _, size := range []int{50, 5, 1} {
		// Protected fields are not indexed, so no query can ask for documents that have them.
		body, err := json.Marshal(map[string]any{
			"size": size, "_source": paths, "query": map[string]any{"match_all": struct{}{}}, "sort": []string{"_doc"}, "track_total_hits": false,
		})
		if err != nil {
			return nil, c.unknown(err)
		}
		path := "/" + url.PathEscape(name) + "/_search?ignore_unavailable=true&allow_no_indices=true&request_cache=false&filter_path=hits.hits._source"
		status, reply, err := c.ask(ctx, c.own, http.MethodPost, path, body, maxSampled)
		if err == nil && isDenied(status) && caller != nil {
			status, reply, err = c.ask(ctx, caller, http.MethodPost, path, body, maxSampled)
		}
		switch {
		case err != nil:
			if ctx.Err() != nil {
				return nil, c.unknown(err)
			}
			lostErr = err // perhaps too long: fewer may do
			continue
		case isDenied(status):
			c.warnOnce("stored key ids could not be checked: reading is denied", "target", name,
				"repair", "give the proxy's user the privilege read on protected indices")
			return nil, nil
		case status == http.StatusBadRequest || status == http.StatusNotFound: // closed, or gone meanwhile
			return nil, nil
		case status != http.StatusOK:
			return nil, c.unknown(statusError(status))
		case len(bytes.TrimSpace(reply)) > 0 && !gjson.ValidBytes(reply):
			return nil, c.unknown(errGarbage)
		}
		return reply, nil
	}
	return nil, c.unknown(lostErr)
}
