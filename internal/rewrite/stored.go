package rewrite

import (
	"net/url"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/esproxy/esproxy/internal/policy"
)

// maxStored bounds what is read of one stored script or search application. Elasticsearch takes scripts of 64 KiB by default.
const maxStored = 1 << 20

// newGuard makes a guard that can look stored scripts up.
func (r *request) newGuard(rules []*policy.Rule, body []byte) *guard {
	g := newGuard(rules, body)
	g.scripts, g.elsewhere = r.storedScript, r.rulesElsewhere
	return g
}

// rulesElsewhere gives the rules of what a name in a body reaches.
func (r *request) rulesElsewhere(index string) ([]*policy.Rule, error) {
	in, err := r.reach(r.ctx, index)
	return in.named, err
}

// guardQuery is Engine.guardQuery with stored scripts looked up.
func (r *request) guardQuery(rules []*policy.Rule, body []byte) (queryInfo, error) {
	return r.newGuard(rules, body).searchBody()
}

// storedScript reads a stored script or template. It gives nil when there is none of that id.
func (r *request) storedScript(id string) (*templateText, error) {
	reply, err := r.readStored("/_scripts/"+url.PathEscape(id), "the stored script that the request names")
	if reply == nil || err != nil {
		return nil, err
	}
	script := gjson.GetBytes(reply, "script")
	source := script.Get("source")
	if source.Type != gjson.String {
		return nil, templateFault(badTemplate("the stored script cannot be read"))
	}
	t := &templateText{lang: script.Get("lang").String(), source: []byte(source.String())}
	if kind := script.Get("options.content_type"); kind.Exists() {
		switch name, _, _ := strings.Cut(kind.String(), ";"); name {
		case "application/json":
		case "text/plain":
			t.plain = true
		default:
			return nil, templateFault(badTemplate("the stored template escapes its values for something else than JSON"))
		}
	}
	return t, nil
}

// readStored reads what a request refers to by its name. It gives nil when there is none: Elasticsearch says so then.
func (r *request) readStored(path, what string) ([]byte, error) {
	status, reply, err := r.Cluster.Read(r.ctx, r.call.Caller, path, maxStored)
	switch {
	case err != nil:
		return nil, err
	case status == 404:
		return nil, nil
	case status != 200 || !gjson.ValidBytes(reply):
		return nil, &Fault{Status: 403, Type: "esproxy_lookup_failed", Reason: what + " must be read before the request can be judged, and neither these credentials nor the proxy's own may read it; " +
			"grant the cluster privilege to read it, or send it inline"}
	}
	return reply, nil
}
