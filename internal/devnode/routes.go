//go:build !nodevnode

package devnode

import (
	"slices"
	"strings"
)

type handler func(*Node, *request) (*response, *esError)

// route is one endpoint this node implements. A segment in braces stands for
// any text; the first one never starts with an underscore, except in names
// such as _all.
type route struct {
	methods string
	path    string
	h       handler
}

var routeTable = []route{
	{"GET HEAD", "/", (*Node).root},
	{"GET", "/_cluster/health", (*Node).clusterHealth},
	{"GET", "/_cluster/health/{index}", (*Node).clusterHealth},
	{"GET", "/_cluster/settings", (*Node).clusterSettings},
	{"GET", "/_cat/indices", (*Node).catIndices},
	{"GET", "/_cat/indices/{index}", (*Node).catIndices},
	{"GET", "/_cat/health", (*Node).catHealth},
	{"GET", "/_nodes/http", (*Node).nodesHTTP},
	{"GET", "/_license", (*Node).license},
	{"GET", "/_data_stream", (*Node).dataStreams},
	{"GET", "/_data_stream/{name}", (*Node).dataStreams},
	{"POST", "/_index_template/_simulate_index/{name}", (*Node).simulateIndex},
	{"GET", "/_resolve/index/{name}", (*Node).resolveIndex},
	{"GET", "/_mapping", (*Node).getMapping},
	{"GET HEAD", "/_alias", (*Node).getAlias},
	{"GET HEAD", "/_alias/{name}", (*Node).getAlias},
	{"POST", "/_aliases", (*Node).updateAliases},
	{"GET POST", "/_refresh", (*Node).refresh},
	{"POST PUT", "/_bulk", (*Node).bulk},
	{"GET POST", "/_mget", (*Node).mget},
	{"GET POST", "/_search", (*Node).search},
	{"GET POST", "/_search/scroll", (*Node).nextScroll},
	{"GET POST", "/_search/scroll/{scroll_id}", (*Node).nextScroll},
	{"DELETE", "/_search/scroll", (*Node).clearScroll},
	{"DELETE", "/_search/scroll/{scroll_id}", (*Node).clearScroll},
	{"DELETE", "/_pit", (*Node).closePit},
	{"GET POST", "/_count", (*Node).count},
	{"GET POST", "/_msearch", (*Node).msearch},
	{"PUT", "/{index}", (*Node).createIndexAPI},
	{"GET HEAD", "/{index}", (*Node).getIndex},
	{"DELETE", "/{index}", (*Node).deleteIndexAPI},
	{"GET", "/{index}/_mapping", (*Node).getMapping},
	{"PUT POST", "/{index}/_mapping", (*Node).putMapping},
	{"GET HEAD", "/{index}/_alias", (*Node).getAlias},
	{"GET HEAD", "/{index}/_alias/{name}", (*Node).getAlias},
	{"PUT POST", "/{index}/_alias/{name}", func(n *Node, r *request) (*response, *esError) { return n.oneAlias(r, true) }},
	{"DELETE", "/{index}/_alias/{name}", func(n *Node, r *request) (*response, *esError) { return n.oneAlias(r, false) }},
	{"GET POST", "/{index}/_refresh", (*Node).refresh},
	{"POST PUT", "/{index}/_bulk", (*Node).bulk},
	{"POST", "/{index}/_doc", func(n *Node, r *request) (*response, *esError) { return n.indexDoc(r, "index", false) }},
	{"POST PUT", "/{index}/_doc/{id}", func(n *Node, r *request) (*response, *esError) { return n.indexDoc(r, "index", true) }},
	{"POST PUT", "/{index}/_create/{id}", func(n *Node, r *request) (*response, *esError) { return n.indexDoc(r, "create", true) }},
	{"GET HEAD", "/{index}/_doc/{id}", (*Node).getDoc},
	{"DELETE", "/{index}/_doc/{id}", (*Node).deleteDoc},
	{"GET HEAD", "/{index}/_source/{id}", (*Node).getSource},
	{"POST", "/{index}/_update/{id}", (*Node).updateDoc},
	{"GET POST", "/{index}/_mget", (*Node).mget},
	{"GET POST", "/{index}/_search", (*Node).search},
	{"GET POST", "/{index}/_count", (*Node).count},
	{"GET POST", "/{index}/_msearch", (*Node).msearch},
	{"POST", "/{index}/_pit", (*Node).openPit},
}

// route finds the endpoint. Fixed segments are compared as they were sent.
func (n *Node) route(r *request) (*response, *esError) {
	for _, rt := range routeTable {
		if slices.Contains(strings.Fields(rt.methods), r.method) && matchRoute(rt.path, r.segs) {
			return rt.h(n, r)
		}
	}
	return nil, unsupported("%s %s", r.method, r.path)
}

func matchRoute(path string, segs []string) bool {
	want := strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
	if len(want) != len(segs) {
		return false
	}
	for i, w := range want {
		switch {
		case w[0] != '{':
			if w != segs[i] {
				return false
			}
		case i == 0 && strings.HasPrefix(segs[0], "_") && segs[0] != "_all":
			return false
		}
	}
	return true
}
