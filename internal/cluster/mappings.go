package cluster

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
	"golang.org/x/sync/errgroup"
)

// CheckMappings reads the mappings of all protected indices, changes nothing, and tells in the log which do not fit what
// sealed values need, with what repairs them. It gives the number of indices whose mapping does not fit or lacks a protected
// field. 503 FaultUnknown when the cluster did not answer; what the proxy may not read is skipped with one warning.
func (c *Cluster) CheckMappings(ctx context.Context) (wrong int, err error) {
	if c.policy == nil || c.policy() == nil {
		return 0, nil
	}
	v, err := c.fresh(ctx)
	if err != nil {
		return 0, err
	}
	var names []string
	for n := range v.indices {
		names = append(names, n)
	}
	slices.Sort(names)
	var unfit, lacking atomic.Int64
	var g errgroup.Group
	g.SetLimit(keyCheckers)
	for _, name := range names {
		r, _ := v.resolve(name, false)
		rules, _ := c.policy().Match(r.Names) // of conflicting rules those that apply to it are told by the requests
		if len(rules) == 0 || r.Failures {
			continue
		}
		g.Go(func() error {
			mappings, found, err := c.readMapping(ctx, name)
			switch {
			case errors.Is(err, errDenied):
				return nil
			case err != nil || !found:
				return err
			}
			p := planMapping(mappings, rules)
			switch {
			case c.warnMappings(name, p, mappings, rules):
				unfit.Add(1)
			case p.lacking:
				lacking.Add(1)
			}
			return nil
		})
	}
	err = g.Wait()
	if n := unfit.Load(); n > 0 {
		c.log.Warn("indices have mappings that do not fit protected fields; values are sealed there all the same", "indices", n,
			"repair", "esproxy doctor lists them, esproxy setup repairs what can be repaired in place; for the rest make a new index and reindex")
	}
	if n := lacking.Load(); n > 0 {
		c.log.Info("indices do not map all protected fields yet; the first write to each adds them", "indices", n, "command", "esproxy setup adds them at once")
	}
	return int(unfit.Load() + lacking.Load()), err
}

var errDenied = errors.New("the proxy may not read the mapping")

// readMapping gives the mapping of a concrete index; found is false when there is no such index. errDenied was logged.
func (c *Cluster) readMapping(ctx context.Context, index string) (mappings string, found bool, err error) {
	status, reply, err := c.ask(ctx, c.own, http.MethodGet, "/"+url.PathEscape(index)+"/_mapping", nil, maxView)
	switch {
	case err != nil:
		return "", false, c.unknown(err)
	case status == http.StatusNotFound:
		return "", false, nil
	case isDenied(status):
		c.warnMapping(index, status)
		return "", false, errDenied
	case status != http.StatusOK:
		return "", false, c.unknown(statusError(status))
	case !gjson.ValidBytes(reply):
		return "", false, c.unknown(errGarbage)
	}
	gjson.ParseBytes(reply).ForEach(func(_, v gjson.Result) bool {
		mappings = v.Get("mappings").Raw
		return false
	})
	return mappings, true, nil
}

// warnMappings tells the log what does not fit in the mapping of an index, once each, and reports whether anything does not.
func (c *Cluster) warnMappings(index string, p mappingPlan, mappings string, rules []*policy.Rule) bool {
	const msg = "the mapping of a protected field does not fit"
	for _, w := range p.warnings {
		c.warnOnce(msg, "index", index, "field", w.path, "problem", w.problem, "repair", w.repair)
	}
	if len(p.warnings) > 0 {
		return true
	}
	if f := rewrite.MappingFault(rules, []byte(mappings)); f != nil {
		c.warnOnce(msg, "index", index, "problem", f.Reason, "repair", "create a new index without it and reindex")
		return true
	}
	return false
}
