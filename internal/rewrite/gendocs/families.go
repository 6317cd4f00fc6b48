package main

import "strings"

// families bring APIs together in the order in which a reader looks for them, each named by the part before the dot or by its whole
// name.
var families = []struct {
	title string
	apis  []string
}{
	{"Documents", []string{"index", "create", "bulk", "update", "delete", "get", "get_source", "exists", "exists_source", "mget", "reindex", "update_by_query", "delete_by_query",
		"reindex_rethrottle", "update_by_query_rethrottle", "delete_by_query_rethrottle", "list_reindex", "get_reindex", "cancel_reindex", "termvectors", "mtermvectors"}},
	{"Searches", []string{"search", "async_search", "msearch", "scroll", "clear_scroll", "open_point_in_time", "close_point_in_time", "count", "explain", "field_caps", "terms_enum", "knn_search", "search_mvt",
		"search_shards", "search_template", "msearch_template", "render_search_template", "rank_eval", "graph", "search_application", "query_rules", "synonyms"}},
	{"SQL, ES|QL and EQL", []string{"sql", "esql", "eql"}},
	{"Indices, mappings, templates and aliases", []string{"indices", "cluster.put_component_template", "cluster.get_component_template", "cluster.delete_component_template", "cluster.exists_component_template", "dangling_indices", "streams"}},
	{"Ingest pipelines", []string{"ingest", "simulate", "logstash"}},
	{"Scripts", []string{"put_script", "get_script", "delete_script", "get_script_context", "get_script_languages", "scripts_painless_execute"}},
	{"Transforms, rollups, enrich policies and watches", []string{"transform", "rollup", "enrich", "watcher"}},
	{"Machine learning and inference", []string{"ml", "inference", "text_structure"}},
	{"Lifecycles, snapshots and replication", []string{"ilm", "slm", "snapshot", "searchable_snapshots", "ccr"}},
	{"Security", []string{"security"}},
	{"Cluster, nodes and tasks", []string{"info", "ping", "cluster", "nodes", "tasks", "health_report", "capabilities", "features", "migration", "shutdown", "autoscaling", "project", "encryption", "license", "xpack", "ssl", "monitoring", "profiling", "_internal"}},
	{"Tables of the cluster", []string{"cat"}},
	{"Connectors and Fleet", []string{"connector", "fleet"}},
	{"Not in the specification", []string{"unlisted"}},
	{"Names of version 7", []string{"compat7"}},
}

// familyOf gives the title of the family that an API is in, or "".
func familyOf(api string) string {
	prefix, _, _ := strings.Cut(api, ".")
	found := ""
	for _, f := range families {
		for _, a := range f.apis {
			if a == api {
				return f.title
			}
			if a == prefix {
				found = f.title
			}
		}
	}
	return found
}
