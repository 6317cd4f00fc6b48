package cluster

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"
)

// keepScripted is how long it is believed what the nodes can do.
const keepScripted = time.Minute

// CanHaveSentinels reports whether the cluster can compute fields by scripts while it indexes, and if not, why: each node needs the module
// lang-painless, and OpenSearch has no such fields. Where the cluster does not tell, the answer is yes, and a mapping that is put will tell.
func (c *Cluster) CanHaveSentinels(ctx context.Context) (ok bool, why string) {
	if why, known := c.scripted.get("", c.now()); known {
		return why == "", why
	}
	status, reply, err := c.ask(ctx, c.own, http.MethodGet, "/_nodes/plugins?filter_path=nodes.*.modules.name,nodes.*.plugins.name", nil, maxView)
	if err != nil || status != http.StatusOK || !gjson.ValidBytes(reply) {
		return true, ""
	}
	nodes, lacking := 0, 0
	gjson.GetBytes(reply, "nodes").ForEach(func(_, node gjson.Result) bool {
		nodes++
		if !node.Get(`modules.#(name=="lang-painless")`).Exists() && !node.Get(`plugins.#(name=="lang-painless")`).Exists() {
			lacking++
		}
		return true
	})
	if nodes == 0 {
		return true, ""
	}
	switch {
	case lacking > 0:
		why = "Elasticsearch has no painless here (the module lang-painless is missing), and a sentinel is a script in it"
	default:
		status, reply, err := c.ask(ctx, c.own, http.MethodGet, "/", nil, 1<<20)
		if err == nil && status == http.StatusOK && gjson.GetBytes(reply, "version.distribution").Str == "opensearch" {
			why = "OpenSearch computes no fields by scripts while it indexes, which a sentinel needs"
		}
	}
	c.scripted.put("", why, c.now().Add(keepScripted))
	return why == "", why
}

// bodies gives what to try, in this order, to create an index whose templates give it mappings ("" for none) under rules: the whole, and where
// the server takes that for a conflict, parts of it. Nothing is left of sentinels that are required; required tells whether there are any.
func (c *Cluster) bodies(ctx context.Context, mappings string, rules []*policy.Rule) (bodies [][]byte, required bool) {
	fields := planNew(mappings, rules).put
	var wish, must []*policy.Rule
	for _, r := range rules {
		if r.Sentinel == policy.SentinelOff || rewrite.JudgeSentinel([]byte(mappings), r).Guards() {
			continue
		}
		if r.Sentinel == policy.SentinelRequired {
			must = append(must, r)
			wish = append(wish, r)
		} else if ok, _ := c.CanHaveSentinels(ctx); ok {
			wish = append(wish, r)
		}
	}
	add := func(mapping []byte, rules []*policy.Rule) {
		mapping = addSentinels(mapping, rules)
		var body []byte
		if mapping != nil {
			body = []byte(`{"mappings":` + string(mapping) + `}`)
		}
		if !slices.ContainsFunc(bodies, func(b []byte) bool { return bytes.Equal(b, body) }) {
			bodies = append(bodies, body)
		}
	}
	add(fields, wish)
	if len(wish) > 0 {
		add(nil, wish)
		add(fields, must)
	}
	add(nil, must)
	return bodies, len(must) > 0
}

// addSentinels adds the sentinels of rules to a mapping, a JSON object or nil.
func addSentinels(mapping []byte, rules []*policy.Rule) []byte {
	for _, r := range rules {
		if mapping == nil {
			mapping = []byte(`{}`)
		}
		name, definition := rewrite.Sentinel(r)
		mapping, _ = sjson.SetRawBytes(mapping, "properties."+name, definition) // both are JSON, and the name has no dots
	}
	return mapping
}

func sentinelFault(target, why string) *rewrite.Fault {
	return &rewrite.Fault{Status: http.StatusServiceUnavailable, Type: FaultSentinel,
		Reason: "the policy requires a sentinel, a check inside Elasticsearch that keeps plain values out, and [" + target + "] is without: " + why +
			"; nothing was written. Run esproxy setup, or say sentinel: on or off in the rule"}
}

// checkSentinels judges the sentinels of an index by its mapping, "" where the proxy may not read it. One that is required and does not guard
// refuses writes (503 FaultSentinel); one that is only wanted gives one warning. It is not added here: on a restart Elasticsearch would play
// operations that are not flushed yet through its script, and drop those that fail.
func (c *Cluster) checkSentinels(ctx context.Context, index, mappings string, rules []*policy.Rule) error {
	for _, r := range rules {
		if r.Sentinel == policy.SentinelOff {
			continue
		}
		state := rewrite.JudgeSentinel([]byte(mappings), r)
		if state.Guards() {
			continue
		}
		can, why := c.CanHaveSentinels(ctx)
		switch {
		case r.Sentinel == policy.SentinelRequired && mappings == "":
			return sentinelFault(index, "the proxy may not read its mapping; give the proxy's user the privilege view_index_metadata")
		case r.Sentinel == policy.SentinelRequired && !can:
			return sentinelFault(index, why)
		case r.Sentinel == policy.SentinelRequired:
			return sentinelFault(index, "in its mapping the sentinel of rule ["+r.Name+"] is "+state.String())
		case mappings == "": // that was told already
		case !can:
			c.warnOnce("the policy asks for sentinels, and the cluster can't have them; only the proxy looks for plain values", "rule", r.Name, "reason", why,
				"repair", "say sentinel: off in the rule, or use Elasticsearch with all its modules")
		default:
			c.warnOnce("the index is without its sentinel; plain values that are written around the proxy are not stopped there", "index", index, "rule", r.Name,
				"problem", state.String(), "repair", "esproxy setup")
		}
	}
	return nil
}
