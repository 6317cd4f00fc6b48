package test

import (
	"slices"
	"strings"
)

// form is one body that an endpoint takes. In it stand $D for a document with the value, $F for the members of that document that hold
// it, $N for the name of their field, $C for the value, $I for the target of the request and $Q for a query.
type form struct {
	name string
	body string
	// script marks what only a script would write or compare: on protected targets all of it may be refused.
	script bool
	// odd marks what is no ordinary request: it is only walked with protected values.
	odd bool
	// free marks what names no field, so that no value in it can be told from any other: it is only walked with values of no rule.
	free bool
}

// holds reports whether a value stands in the form.
func (f form) holds() bool {
	return strings.Contains(f.body, "$D") || strings.Contains(f.body, "$F") || strings.Contains(f.body, "$C")
}

func (f form) lines() bool { return strings.HasSuffix(f.body, "\n") }

const nl = "\n"

// docForms is what endpoints that take no particular body are tried with: every form in which values travel elsewhere.
var docForms = []form{
	{name: "document", body: `$D`},
	{name: "update", body: `{"doc":$D}`, odd: true},
	{name: "query", body: `{"query":{"term":{"$N":"$C"}}}`, odd: true},
	{name: "script", body: `{"script":{"source":"ctx._source.$N='$C'"}}`, odd: true},
	{name: "params", body: `{"script":{"source":"ctx._source.$N=params.c","params":{"c":"$C"}}}`, odd: true},
	{name: "template params", body: `{"source":{"query":{"term":{"$N":"{{c}}"}}},"params":{"c":"$C"}}`, odd: true},
	{name: "documents", body: `{"docs":[{"_index":"$I","_id":"1","_source":$D,"doc":$D}]}`, odd: true},
	{name: "lines", body: `{"index":{"_index":"$I","_id":"1"}}` + nl + `$D` + nl, odd: true},
}

var bulkForms = []form{
	{name: "index", body: `{"index":{"_index":"$I","_id":"1"}}` + nl + `$D` + nl},
	{name: "create", body: `{"create":{"_index":"$I"}}` + nl + `$D` + nl},
	{name: "update", body: `{"update":{"_index":"$I","_id":"kept"}}` + nl + `{"doc":$D}` + nl},
	{name: "upsert", body: `{"update":{"_index":"$I","_id":"new"}}` + nl + `{"doc":$D,"upsert":$D}` + nl},
	{name: "doc as upsert", body: `{"update":{"_index":"$I","_id":"new"}}` + nl + `{"doc":$D,"doc_as_upsert":true}` + nl},
	{name: "script", body: `{"update":{"_index":"$I","_id":"kept"}}` + nl + `{"script":{"source":"ctx._source.$N=params.c","params":{"c":"$C"}}}` + nl, script: true},
	{name: "script and upsert", body: `{"update":{"_index":"$I","_id":"new"}}` + nl + `{"scripted_upsert":true,"script":{"source":"ctx._source.x=1"},"upsert":$D}` + nl, script: true},
	{name: "among others", body: `{"index":{"_index":"$Pfree","_id":"1"}}` + nl + `{"a":1}` + nl + `{"delete":{"_index":"$I","_id":"9"}}` + nl + `{"index":{"_index":"$I","_id":"2"}}` + nl + `$D` + nl},
	{name: "dynamic templates", body: `{"index":{"_index":"$I","_id":"1","dynamic_templates":{"$N":"t"}}}` + nl + `$D` + nl, odd: true},
	{name: "routing", body: `{"index":{"_index":"$I","_id":"3","routing":"r"}}` + nl + `$D` + nl},
}

var updateForms = []form{
	{name: "doc", body: `{"doc":$D}`},
	{name: "doc without a subject", body: `{"doc":{$F}}`},
	{name: "upsert", body: `{"doc":$D,"upsert":$D}`},
	{name: "doc as upsert", body: `{"doc":$D,"doc_as_upsert":true}`},
	{name: "script", body: `{"script":"ctx._source.$N='$C'"}`, script: true},
	{name: "params", body: `{"script":{"source":"ctx._source.$N=params.c","params":{"c":"$C"}}}`, script: true},
	{name: "named params", body: `{"script":{"source":"ctx._source.putAll(params)","params":{$F}}}`, script: true},
	{name: "stored script", body: `{"script":{"id":"s","params":{"$N":"$C"}}}`, script: true},
	{name: "scripted upsert", body: `{"scripted_upsert":true,"script":{"source":"ctx._source.x=1"},"upsert":$D}`, script: true},
}

// queries are clauses that compare a field with a value.
var queries = []string{
	`{"term":{"$N":"$C"}}`,
	`{"term":{"$N":{"value":"$C","boost":2}}}`,
	`{"terms":{"$N":["x","$C"]}}`,
	`{"terms_set":{"$N":{"terms":["$C"],"minimum_should_match_field":"n"}}}`,
	`{"match":{"$N":"$C"}}`,
	`{"match":{"$N":{"query":"$C","operator":"and"}}}`,
	`{"match_phrase":{"$N":"$C"}}`,
	`{"match_phrase_prefix":{"$N":{"query":"$C"}}}`,
	`{"match_bool_prefix":{"$N":"$C"}}`,
	`{"prefix":{"$N":{"value":"$C"}}}`,
	`{"wildcard":{"$N":"$C*"}}`,
	`{"regexp":{"$N":"$C.*"}}`,
	`{"fuzzy":{"$N":{"value":"$C"}}}`,
	`{"range":{"$N":{"gte":"$C","lt":"$C9"}}}`,
	`{"query_string":{"query":"$N:$C"}}`,
	`{"query_string":{"query":"a AND ($N:(\"$C\" OR x))"}}`,
	`{"query_string":{"query":"$C","fields":["a","$N^2"]}}`,
	`{"query_string":{"query":"$C","default_field":"$N"}}`,
	`{"simple_query_string":{"query":"$C","fields":["$N"]}}`,
	`{"multi_match":{"query":"$C","fields":["a","$N"]}}`,
	`{"combined_fields":{"query":"$C","fields":["$N"]}}`,
	`{"intervals":{"$N":{"match":{"query":"$C"}}}}`,
	`{"span_term":{"$N":"$C"}}`,
	`{"span_near":{"clauses":[{"span_term":{"$N":{"value":"$C"}}}],"slop":1}}`,
	`{"span_multi":{"match":{"prefix":{"$N":{"value":"$C"}}}}}`,
	`{"bool":{"must":[{"match_all":{}}],"filter":{"bool":{"must_not":{"term":{"$N":"$C"}}}}}}`,
	`{"constant_score":{"filter":{"term":{"$N":"$C"}}}}`,
	`{"dis_max":{"queries":[{"match":{"$N":"$C"}}]}}`,
	`{"boosting":{"positive":{"match_all":{}},"negative":{"term":{"$N":"$C"}},"negative_boost":0.5}}`,
	`{"function_score":{"query":{"match_all":{}},"functions":[{"filter":{"match":{"$N":"$C"}},"weight":2}]}}`,
	`{"nested":{"path":"a","query":{"term":{"$N":"$C"}}}}`,
	`{"has_child":{"type":"a","query":{"term":{"$N":"$C"}}}}`,
	`{"pinned":{"ids":["1"],"organic":{"match":{"$N":"$C"}}}}`,
	`{"distance_feature":{"field":"$N","origin":"$C","pivot":"1"}}`,
	`{"more_like_this":{"fields":["$N"],"like":"$C"}}`,
	`{"more_like_this":{"fields":["city"],"like":[{"_index":"$I","doc":$D}]}}`,
	`{"percolate":{"field":"query","document":$D}}`,
	`{"percolate":{"field":"query","documents":[{"a":1},$D]}}`,
	`{"semantic":{"field":"$N","query":"$C"}}`,
	`{"knn":{"field":"v","query_vector":[1],"filter":{"term":{"$N":"$C"}}}}`,
}

// scripted are clauses whose values sit in scripts.
var scripted = []string{
	`{"script":{"script":{"source":"doc['$N'].value == params.c","params":{"c":"$C"}}}}`,
	`{"script_score":{"query":{"match_all":{}},"script":{"source":"doc['$N'].value == '$C' ? 1 : 0"}}}`,
	`{"function_score":{"script_score":{"script":{"source":"doc['$N'].value == params['c'] ? 1 : 0","params":{"c":"$C"}}}}}`,
}

// searchForms are search bodies with a value.
var searchForms = makeSearchForms()

func makeSearchForms() (list []form) {
	for i, q := range queries {
		list = append(list, form{name: "query " + itoa(i), body: `{"query":` + q + `}`})
	}
	for i, q := range scripted {
		list = append(list, form{name: "script " + itoa(i), body: `{"query":` + q + `}`, script: true})
	}
	return append(list, []form{
		{name: "post filter", body: `{"post_filter":{"term":{"$N":"$C"}}}`},
		{name: "filter aggregation", body: `{"size":0,"aggs":{"a":{"filter":{"term":{"$N":"$C"}}}}}`},
		{name: "filters aggregation", body: `{"size":0,"aggs":{"a":{"filters":{"filters":{"x":{"match":{"$N":"$C"}}}}}}}`},
		{name: "adjacency", body: `{"aggs":{"a":{"adjacency_matrix":{"filters":{"x":{"term":{"$N":"$C"}}}}}}}`},
		{name: "include", body: `{"aggs":{"a":{"terms":{"field":"$N","include":["$C"]}}}}`},
		{name: "exclude", body: `{"aggs":{"a":{"terms":{"field":"$N","exclude":"$C.*"}}}}`},
		{name: "missing", body: `{"aggs":{"a":{"terms":{"field":"$N","missing":"$C"}}}}`},
		{name: "composite", body: `{"aggs":{"a":{"composite":{"sources":[{"k":{"terms":{"field":"$N"}}}],"after":{"k":"$C"}}}}}`},
		{name: "range aggregation", body: `{"aggs":{"a":{"range":{"field":"$N","ranges":[{"from":$C}]}}}}`},
		{name: "background", body: `{"aggs":{"a":{"significant_terms":{"field":"city","background_filter":{"term":{"$N":"$C"}}}}}}`},
		{name: "nested aggregations", body: `{"aggs":{"b":{"global":{},"aggs":{"a":{"filter":{"term":{"$N":"$C"}}}}}}}`},
		{name: "scripted metric", body: `{"aggs":{"a":{"scripted_metric":{"init_script":"state.c=params.c","map_script":"state.n = doc['$N'].value == '$C'","params":{"c":"$C"},"combine_script":"state","reduce_script":"1"}}}}`, script: true},
		{name: "sort missing", body: `{"sort":[{"$N":{"order":"asc","missing":"$C"}}]}`},
		{name: "sort filter", body: `{"sort":[{"n":{"order":"asc","nested":{"path":"a","filter":{"term":{"$N":"$C"}}}}}]}`},
		{name: "sort script", body: `{"sort":{"_script":{"type":"number","script":{"source":"doc['$N'].value == params.c ? 1:0","params":{"c":"$C"}}}}}`, script: true},
		{name: "search after", body: `{"sort":[{"$N":"asc"}],"search_after":["$C"]}`},
		{name: "suggestion", body: `{"suggest":{"s":{"text":"$C","term":{"field":"$N"}}}}`},
		{name: "completion", body: `{"suggest":{"s":{"prefix":"$C","completion":{"field":"$N"}}}}`},
		{name: "rescore", body: `{"rescore":{"window_size":5,"query":{"rescore_query":{"match":{"$N":"$C"}}}}}`},
		{name: "highlight", body: `{"highlight":{"fields":{"city":{"highlight_query":{"match":{"$N":"$C"}}}}}}`},
		{name: "collapse", body: `{"collapse":{"field":"city","inner_hits":{"name":"i","sort":[{"$N":{"missing":"$C"}}]}}}`},
		{name: "runtime field", body: `{"runtime_mappings":{"r":{"type":"boolean","script":{"source":"emit(doc['$N'].value == params.c)","params":{"c":"$C"}}}}}`, script: true},
		{name: "script field", body: `{"script_fields":{"s":{"script":{"source":"doc['$N'].value == '$C'"}}}}`, script: true},
		{name: "knn", body: `{"knn":{"field":"v","query_vector":[1],"k":1,"num_candidates":2,"filter":{"term":{"$N":"$C"}}}}`},
		{name: "retriever", body: `{"retriever":{"standard":{"query":{"match":{"$N":"$C"}}}}}`},
		{name: "retrievers", body: `{"retriever":{"rrf":{"retrievers":[{"standard":{"filter":{"term":{"$N":"$C"}}}}]}}}`},
		{name: "several", body: `{"query":{"bool":{"filter":[{"exists":{"field":"$N"}},{"term":{"$N":"$C"}}]}},"size":3,"_source":["city"],"fields":["$N"]}`},
	}...)
}

// around puts each body of list into another.
func around(list []form, before, after string) (out []form) {
	for _, f := range list {
		f.body = before + f.body + after
		out = append(out, f)
	}
	return out
}

// queryForms are bodies whose member holds a query, in the words of before and after.
func queryForms(before, after string) (out []form) {
	for i, q := range queries {
		out = append(out, form{name: "query " + itoa(i), body: before + q + after})
	}
	for i, q := range scripted {
		out = append(out, form{name: "script " + itoa(i), body: before + q + after, script: true})
	}
	return out
}

// some takes every nth form, so that endpoints which share a grammar with _search do not repeat all of it.
func some(list []form, n int) (out []form) {
	for i := 0; i < len(list); i += n {
		out = append(out, list[i])
	}
	return out
}

// forms gives the bodies that a row is walked with. known tells that the API takes bodies of this kind.
func (r row) forms() (list []form, known bool) {
	api := strings.TrimPrefix(r.api, "compat7.")
	if strings.HasPrefix(r.template, "/_render/template/{id}") { // of a stored template
		return []form{{name: "params", body: `{"params":{"f":"$N","c":"$C"}}`}}, true
	}
	if f, ok := formsOf[api]; ok {
		return f, true
	}
	return docForms, false
}

var formsOf = makeForms()

func makeForms() map[string][]form {
	doc := []form{{name: "document", body: `$D`}}
	count := []form{}
	for _, f := range searchForms {
		if strings.HasPrefix(f.name, "query") || strings.HasPrefix(f.name, "script ") {
			count = append(count, f)
		}
	}
	header := `{"index":"$I"}` + nl
	msearch := append(around(searchForms, header, nl), form{name: "no index", body: `{}` + nl + `{"query":{"term":{"$N":"$C"}}}` + nl},
		form{name: "second", body: `{"index":"$Pfree"}` + nl + `{}` + nl + header + `{"query":{"match":{"$N":"$C"}}}` + nl})
	template := []form{
		{name: "params", body: `{"source":{"query":{"term":{"$N":"{{c}}"}}},"params":{"c":"$C"}}`},
		{name: "text", body: `{"source":"{\"query\":{\"match\":{\"$N\":\"{{c}}\"}}}","params":{"c":"$C"}}`},
		{name: "literal", body: `{"source":{"query":{"term":{"$N":"$C"}}}}`},
		{name: "literal text", body: `{"source":"{\"query\":{\"match\":{\"$N\":\"$C\"}}}"}`},
		{name: "field by params", body: `{"source":{"query":{"term":{"{{f}}":"{{c}}"}}},"params":{"c":"$C","f":"$N"}}`, odd: true},
		{name: "stored", body: `{"id":"stored","params":{"f":"$N","c":"$C"}}`, odd: true},
		{name: "stored, named", body: `{"id":"stored","params":{"$N":"$C"}}`, odd: true},
	}
	mapping := []form{
		{name: "runtime", body: `{"runtime":{"r":{"type":"keyword","script":{"source":"if (doc['$N'].value == '$C') emit('x')"}}},"properties":{"n":{"type":"long"}}}`, odd: true},
		{name: "null value", body: `{"properties":{"$N":{"type":"keyword","null_value":"$C"}}}`, odd: true},
		{name: "meta", body: `{"_meta":{$F}}`, odd: true},
		{name: "another field", body: `{"properties":{"city":{"type":"keyword","null_value":"$C"}}}`, free: true},
	}
	inside := func(before, after string) []form { return around(mapping, before, after) }
	aliases := []form{
		{name: "filter", body: `{"actions":[{"add":{"index":"$I","alias":"$Pwalk-alias","filter":{"term":{"$N":"$C"}}}}]}`},
		{name: "filters", body: `{"actions":[{"add":{"index":"$Pfree","alias":"$Pwalk-a2"}},{"add":{"indices":["$I"],"aliases":["$Pwalk-a3"],"filter":{"bool":{"must":[{"match":{"$N":"$C"}}]}}}}]}`},
	}
	sql := []form{
		{name: "literal", body: `{"query":"SELECT * FROM \"$I\" WHERE $N = '$C'"}`},
		{name: "params", body: `{"query":"SELECT * FROM \"$I\" WHERE $N = ?","params":["$C"]}`},
		{name: "filter", body: `{"query":"SELECT city FROM \"$I\"","filter":{"term":{"$N":"$C"}}}`},
	}
	esql := []form{
		{name: "literal", body: `{"query":"FROM $I | WHERE $N == \"$C\""}`},
		{name: "params", body: `{"query":"FROM $I | WHERE $N == ?","params":["$C"]}`},
		{name: "named params", body: `{"query":"FROM $I | WHERE $N == ?c","params":[{"c":"$C"}]}`},
		{name: "filter", body: `{"query":"FROM $I | LIMIT 1","filter":{"term":{"$N":"$C"}}}`},
		{name: "row", body: `{"query":"ROW $N = \"$C\""}`, odd: true},
	}
	simulate := []form{
		{name: "documents", body: `{"docs":[{"_index":"$I","_id":"1","_source":$D}]}`},
		{name: "pipeline", body: `{"pipeline":{"processors":[{"set":{"field":"$N","value":"$C"}}]},"docs":[{"_index":"$I","_source":{"a":1}}]}`},
	}
	vectors := []form{{name: "artificial document", body: `{"doc":$D,"fields":["city"]}`}, {name: "filter", body: `{"doc":$D,"filter":{"max_num_terms":3}}`}}
	script := []form{
		{name: "painless", body: `{"script":{"lang":"painless","source":"ctx._source.$N = '$C'"}}`, script: true},
		{name: "mustache", body: `{"script":{"lang":"mustache","source":{"query":{"term":{"$N":"$C"}}}}}`},
		{name: "mustache text", body: `{"script":{"lang":"mustache","source":"{\"query\":{\"term\":{\"$N\":\"$C\"}}}"}}`},
	}
	transform := append(queryForms(`{"source":{"index":["$I"],"query":`, `},"dest":{"index":"$Pwalk-dest"},"pivot":{"group_by":{"c":{"terms":{"field":"city"}}},"aggregations":{"n":{"max":{"field":"n"}}}}}`),
		form{name: "aggregation", body: `{"source":{"index":["$I"]},"dest":{"index":"$Pwalk-dest"},"pivot":{"group_by":{"c":{"terms":{"field":"city"}}},"aggregations":{"n":{"filter":{"term":{"$N":"$C"}}}}}}`},
		form{name: "runtime field", body: `{"source":{"index":["$I"],"runtime_mappings":{"r":{"type":"keyword","script":{"source":"if (doc['$N'].value == '$C') emit('x')"}}}},"dest":{"index":"$Pwalk-dest"}}`, odd: true})
	watch := []form{
		{name: "search", body: `{"trigger":{"schedule":{"interval":"1h"}},"input":{"search":{"request":{"indices":["$I"],"body":{"query":{"term":{"$N":"$C"}}}}}},"actions":{}}`},
		{name: "payload", body: `{"trigger":{"schedule":{"interval":"1h"}},"input":{"simple":$D},"actions":{"w":{"index":{"index":"$I"}}}}`, odd: true},
		{name: "condition", body: `{"trigger":{"schedule":{"interval":"1h"}},"condition":{"script":{"source":"ctx.payload.$N == params.c","params":{"c":"$C"}}},"actions":{}}`, script: true},
	}
	watchNow := []form{{name: "watch", body: `{"watch":` + watch[0].body + `}`}, {name: "input", body: `{"alternative_input":$D,"watch":{"trigger":{"schedule":{"interval":"1h"}},"input":{"none":{}},"actions":{"w":{"index":{"index":"$I"}}}}}`, odd: true}}
	role := queryForms(`{"indices":[{"names":["$I"],"privileges":["read"],"query":`, `}]}`)
	graph := []form{
		{name: "query", body: `{"query":{"term":{"$N":"$C"}},"vertices":[{"field":"city"}]}`},
		{name: "include", body: `{"vertices":[{"field":"$N","include":[{"term":"$C"}]}]}`},
		{name: "exclude", body: `{"vertices":[{"field":"$N","exclude":["$C"]}]}`},
	}
	feed := queryForms(`{"job_id":"j","indices":["$I"],"query":`, `}`)
	frame := queryForms(`{"source":{"index":"$I","query":`, `},"dest":{"index":"$Pwalk-dest"},"analysis":{"outlier_detection":{}}}`)
	pipeline := []form{
		{name: "set", body: `{"processors":[{"set":{"field":"$N","value":"$C"}}]}`},
		{name: "append", body: `{"processors":[{"append":{"field":"$N","value":["$C"]}}]}`},
		{name: "script", body: `{"processors":[{"script":{"source":"ctx['$N'] = params.c","params":{"c":"$C"}}}]}`, script: true},
		{name: "on failure", body: `{"processors":[{"remove":{"field":"x","on_failure":[{"set":{"field":"$N","value":"$C"}}]}}]}`},
	}
	stored := []form{{name: "params", body: `{"params":{"f":"$N","c":"$C"}}`}, {name: "named params", body: `{"params":{"$N":"$C"}}`, odd: true}}
	profile := append([]form{{name: "query", body: `{"query":{"term":{"$N":"$C"}}}`, free: true}}, slices.DeleteFunc(slices.Clone(docForms), func(f form) bool { return f.name == "query" || f.name == "document" })...)
	return map[string][]form{
		"profiling.flamegraph": profile, "profiling.stacktraces": profile, "profiling.topn_functions": profile, // of indices of their own
		"bulk": bulkForms, "index": doc, "create": doc, "update": updateForms,
		"search": searchForms, "async_search.submit": searchForms, "fleet.search": some(searchForms, 3), "search_mvt": some(searchForms, 3),
		"count": some(count, 2), "cat.count": some(count, 3), "indices.validate_query": some(count, 2), "explain": some(count, 2),
		"delete_by_query": count,
		"update_by_query": append(append([]form(nil), count...),
			form{name: "script", body: `{"script":{"source":"ctx._source.$N=params.c","params":{"c":"$C"}}}`, script: true}),
		"msearch": msearch, "fleet.msearch": some(msearch, 3),
		"knn_search":           queryForms(`{"knn":{"field":"v","query_vector":[1],"k":1,"num_candidates":2},"filter":`, `}`),
		"rollup.rollup_search": {{name: "filter", body: `{"size":0,"query":{"term":{"$N":"$C"}}}`}, {name: "aggregation", body: `{"size":0,"aggs":{"a":{"filter":{"term":{"$N":"$C"}}}}}`}},
		"terms_enum": {{name: "filter", body: `{"field":"city","index_filter":{"term":{"$N":"$C"}}}`}, {name: "string", body: `{"field":"$N","string":"$C"}`},
			{name: "search after", body: `{"field":"$N","search_after":"$C"}`}},
		"field_caps":         some(queryForms(`{"fields":["*"],"index_filter":`, `}`), 4),
		"open_point_in_time": some(queryForms(`{"index_filter":`, `}`), 4),
		"reindex": append(queryForms(`{"source":{"index":"$I","query":`, `},"dest":{"index":"$Pwalk-dest"}}`),
			form{name: "script", body: `{"source":{"index":"$I"},"dest":{"index":"$Puser-copy"},"script":{"source":"ctx._source.$N=params.c","params":{"c":"$C"}}}`, odd: true}),
		"mget":        {{name: "documents", body: `{"docs":[{"_index":"$I","_id":"kept"}]}`, free: true}, {name: "more", body: `{"docs":[{"_index":"$I","_id":"kept","doc":$D}]}`, odd: true}},
		"termvectors": vectors, "mtermvectors": {{name: "artificial documents", body: `{"docs":[{"_index":"$I","doc":$D}]}`}},
		"rank_eval": {{name: "request", body: `{"requests":[{"id":"a","request":{"query":{"term":{"$N":"$C"}}},"ratings":[]}],"metric":{"precision":{}}}`},
			{name: "template", body: `{"templates":[{"id":"t","template":{"source":{"query":{"term":{"$N":"{{c}}"}}}}}],"requests":[{"id":"a","template_id":"t","params":{"c":"$C"},"ratings":[]}],"metric":{"precision":{}}}`}},
		"search_template": template, "render_search_template": template, "msearch_template": around(template, header, nl),
		"put_script": script,
		"scripts_painless_execute": {{name: "document", body: `{"script":{"source":"1"},"context":"filter","context_setup":{"index":"$I","document":$D}}`},
			{name: "params", body: `{"script":{"source":"doc['$N'].value == params.c","params":{"c":"$C"}}}`, odd: true}},
		"sql.query": sql, "sql.translate": sql, "esql.query": esql, "esql.async_query": esql,
		"eql.search":      {{name: "query", body: `{"query":"any where $N == \"$C\""}`}, {name: "filter", body: `{"query":"any where true","filter":{"term":{"$N":"$C"}}}`}},
		"esql.put_view":   {{name: "query", body: `{"query":"FROM $I | WHERE $N == \"$C\""}`}},
		"ingest.simulate": simulate, "simulate.ingest": append(append([]form(nil), simulate...),
			form{name: "substitution", body: `{"docs":[{"_index":"$I","_source":{"a":1}}],"pipeline_substitutions":{"p":{"processors":[{"set":{"field":"$N","value":"$C"}}]}}}`}),
		"ingest.put_pipeline": pipeline,
		"graph.explore":       graph,
		"indices.create": append(inside(`{"mappings":`, `}`), form{name: "alias", body: `{"aliases":{"$Pwalk-a":{"filter":{"term":{"$N":"$C"}}}}}`},
			form{name: "settings", body: `{"settings":{"number_of_shards":1,"number_of_replicas":0}}`, free: true}),
		"indices.put_mapping": mapping, "indices.put_data_stream_mappings": mapping, "unlisted.put_mapping": mapping,
		"indices.put_index_template": append(inside(`{"index_patterns":["$Puser*"],"template":{"mappings":`, `}}`),
			form{name: "alias", body: `{"index_patterns":["$Puser*"],"template":{"aliases":{"a":{"filter":{"term":{"$N":"$C"}}}}}}`}),
		"indices.simulate_template":       inside(`{"index_patterns":["$Puser*"],"template":{"mappings":`, `}}`),
		"indices.simulate_index_template": inside(`{"index_patterns":["$Puser*"],"template":{"mappings":`, `}}`),
		"cluster.put_component_template":  append(inside(`{"template":{"mappings":`, `}}`), form{name: "alias", body: `{"template":{"aliases":{"a":{"filter":{"term":{"$N":"$C"}}}}}}`}),
		"indices.put_template":            append(inside(`{"index_patterns":["$Puser*"],"mappings":`, `}`), form{name: "alias", body: `{"index_patterns":["$Puser*"],"aliases":{"a":{"filter":{"term":{"$N":"$C"}}}}}`}),
		"indices.update_aliases":          aliases,
		"indices.put_alias":               some(queryForms(`{"filter":`, `}`), 2),
		"indices.rollover":                append(inside(`{"mappings":`, `}`), form{name: "alias", body: `{"aliases":{"$Pwalk-a":{"filter":{"term":{"$N":"$C"}}}}}`}),
		"indices.clone":                   {{name: "alias", body: `{"aliases":{"$Pwalk-a":{"filter":{"term":{"$N":"$C"}}}}}`}},
		"indices.shrink":                  {{name: "alias", body: `{"aliases":{"$Pwalk-a":{"filter":{"term":{"$N":"$C"}}}}}`}},
		"indices.split":                   {{name: "alias", body: `{"aliases":{"$Pwalk-a":{"filter":{"term":{"$N":"$C"}}}}}`}},
		"security.put_role":               role, "security.bulk_put_role": around(some(role, 5), `{"roles":{"r":`, `}}`),
		"security.create_api_key": around(some(role, 5), `{"name":"k","role_descriptors":{"r":`, `}}`), "security.update_api_key": around(some(role, 5), `{"role_descriptors":{"r":`, `}}`),
		"security.bulk_update_api_keys": around(some(role, 5), `{"ids":["x"],"role_descriptors":{"r":`, `}}`),
		"transform.put_transform":       some(transform, 3), "transform.preview_transform": some(transform, 3), "transform.update_transform": some(transform, 3),
		"enrich.put_policy": some(queryForms(`{"match":{"indices":["$I"],"match_field":"city","enrich_fields":["n"],"query":`, `}}`), 3),
		"watcher.put_watch": watch, "watcher.execute_watch": watchNow,
		"ml.put_datafeed": some(feed, 3), "ml.update_datafeed": some(feed, 3), "ml.preview_datafeed": around(some(feed, 3), `{"datafeed_config":`, `}`),
		"ml.put_data_frame_analytics": some(frame, 3), "ml.preview_data_frame_analytics": around(some(frame, 3), `{"config":`, `}`), "ml.explain_data_frame_analytics": some(frame, 3),
		"ml.evaluate_data_frame":                             some(queryForms(`{"index":"$I","query":`, `,"evaluation":{"outlier_detection":{"actual_field":"a","predicted_probability_field":"b"}}}`), 3),
		"ml.infer_trained_model":                             {{name: "documents", body: `{"docs":[$D]}`}},
		"ml.post_data":                                       {{name: "documents", body: `$D` + nl}},
		"monitoring.bulk":                                    {{name: "document", body: `{"index":{"_type":"x"}}` + nl + `$D` + nl, free: true}}, // into indices of its own
		"indices.analyze":                                    {{name: "text", body: `{"field":"$N","text":["$C"]}`}},
		"rollup.put_job":                                     {{name: "job", body: `{"index_pattern":"$I","rollup_index":"$Pwalk-dest","cron":"* * * * * ?","page_size":10,"groups":{"terms":{"fields":["city"]}},"metrics":[{"field":"n","metrics":["max"]}],$F}`, odd: true}},
		"query_rules.put_ruleset":                            {{name: "criteria", body: `{"rules":[{"rule_id":"a","type":"pinned","criteria":[{"type":"exact","metadata":"$N","values":["$C"]}],"actions":{"ids":["1"]}}]}`}},
		"query_rules.put_rule":                               {{name: "criteria", body: `{"type":"pinned","criteria":[{"type":"exact","metadata":"$N","values":["$C"]}],"actions":{"ids":["1"]}}`}},
		"query_rules.test":                                   {{name: "criteria", body: `{"match_criteria":{"$N":"$C"}}`}},
		"search_application.put":                             {{name: "template", body: `{"indices":["$I"],"template":{"script":{"source":{"query":{"term":{"$N":"$C"}}}}}}`}},
		"search_application.search":                          stored,
		"search_application.render_query":                    stored,
		"search_application.post_behavioral_analytics_event": {{name: "event", body: `$D`, free: true}}, // into indices of its own
	}
}
