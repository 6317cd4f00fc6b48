package rewrite

import (
	"slices"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// Jobs are work that Elasticsearch does by itself later, or tries out now: transforms, enrich policies, rollups, watches,
// datafeeds. Their bodies hold queries and scripts, which are guarded like those of a search, and name places that
// are written to: a protected one only where what is copied is sealed for it already.

// job is one body while it is read.
type job struct {
	r    *request
	body []byte
	root *treeValue
	all  *guard // with all rules, for what is under no known index
}

// jobMembers are the members of each kind of body that hold no documents, queries or scripts. What is not among
// them and not read below is read as an unknown clause.
var jobMembers = map[string][]string{
	"transform": {"description", "frequency", "sync", "settings", "retention_policy", "_meta", "id"},
	"enrich":    {},
	"rollup":    {"cron", "page_size", "groups", "metrics", "timeout", "id"},
	"job": {"job_id", "groups", "description", "analysis_config", "analysis_limits", "data_description", "model_plot_config", "custom_settings",
		"background_persist_interval", "model_snapshot_retention_days", "daily_model_snapshot_retention_after_days", "results_index_name",
		"results_retention_days", "renormalization_window_days", "allow_lazy_open", "detectors", "categorization_filters", "per_partition_categorization",
		"model_prune_window", "clear_job_blocked_reason"},
	"datafeed": {"job_id", "datafeed_id", "query_delay", "frequency", "scroll_size", "chunking_config", "delayed_data_check_config",
		"max_empty_searches", "indices_options", "headers"},
	"analytics": {"id", "description", "analysis", "analyzed_fields", "model_memory_limit", "allow_lazy_start", "max_num_threads", "headers", "version", "_meta"},
	"evaluate":  {"evaluation"},
	"watch":     {"trigger", "metadata", "throttle_period", "throttle_period_in_millis", "status"},
	"inference": {"input", "query", "input_type", "task_settings", "top_n", "return_documents", "messages", "model", "max_completion_tokens", "stop", "temperature",
		"tool_choice", "tools", "top_p", "reasoning", "response_format"},
	"results": {"exclude_interim", "page", "sort", "desc", "start", "end", "anomaly_score", "expand", "record_score", "influencer_score", "bucket_span", "top_n",
		"allow_no_match", "allow_no_jobs", "overall_score", "timestamp", "partition_field_value"},
	"filter": {"description", "items", "add_items", "remove_items"},
	"infer":  {"inference_config", "timeout", "update_trained_model_config"},
	"profiling": {"sample_size", "requested_duration", "aws_cost_factor", "azure_cost_factor", "custom_co2_per_kwh", "custom_cost_per_core_hour", "custom_datacenter_pue",
		"custom_per_core_watt_arm64", "custom_per_core_watt_x86", "co2_per_kwh", "limit", "indices", "stacktrace_ids_field", "aggregation_fields"},
}

func (r *request) newJob(body []byte, root *treeValue) *job {
	return &job{r: r, body: body, root: root, all: r.newGuard(r.Policy.Rules, body)}
}

// job carries the body of a job.
func (r *request) job() (Transform, error) {
	return r.treeBody(func(body []byte, root *treeValue) ([]byte, error) {
		if !root.isObject() {
			return nil, badBodyFault(badSyntax(root.start, "expected an object"))
		}
		return body, r.newJob(body, root).read()
	})
}

// read reads the body by its API.
func (j *job) read() error {
	switch j.r.api {
	case "ml.get_buckets", "ml.get_categories", "ml.get_influencers", "ml.get_overall_buckets", "ml.get_records":
		return j.others(j.root, "results")
	case "ml.put_filter", "ml.update_filter":
		return j.others(j.root, "filter")
	case "transform.put_transform", "transform.preview_transform", "transform.update_transform":
		return j.transform()
	case "enrich.put_policy":
		return j.enrich()
	case "rollup.put_job":
		return j.rollup(string(j.all.text(orNull(j.root.member("rollup_index")))), "index_pattern", "rollup_index")
	case "rollup.rollup":
		return j.rollup(j.r.value("rollup_index"))
	case "ml.put_job", "ml.update_job":
		return j.anomalyJob(j.root)
	case "ml.put_datafeed", "ml.update_datafeed", "ml.preview_datafeed":
		return j.datafeed(j.root)
	case "ml.put_data_frame_analytics", "ml.update_data_frame_analytics", "ml.explain_data_frame_analytics":
		return j.analytics(j.root)
	case "ml.preview_data_frame_analytics":
		if err := j.analytics(j.root.member("config")); err != nil {
			return err
		}
		return j.others(j.root, "", "config")
	case "ml.evaluate_data_frame":
		if err := j.reads(j.names(j.root.member("index")), j.root, "query"); err != nil {
			return err
		}
		return j.others(j.root, "evaluate", "index", "query")
	case "ml.infer_trained_model":
		if f := j.all.documentNames(j.root.member("docs"), ""); f != nil {
			return guardFault(f, "the member [docs]")
		}
		return j.others(j.root, "infer", "docs")
	case "indices.migrate_reindex": // of an index under its own name
		if err := j.others(orNull(j.root.member("source")), "", "index"); err != nil {
			return err
		}
		return j.others(j.root, "", "source", "mode")
	case "watcher.put_watch":
		return j.watch(j.root)
	case "watcher.execute_watch":
		return j.execute()
	case "profiling.flamegraph", "profiling.stacktraces", "profiling.topn_functions":
		if err := j.reads([]string{"profiling-*"}, j.root, "query"); err != nil {
			return err
		}
		return j.others(j.root, "profiling", "query")
	}
	if strings.HasPrefix(j.r.api, "inference.") {
		if q := j.root.member("query"); q.isObject() { // a text by its documentation
			if err := j.all.query(q); err != nil {
				return err
			}
		}
		return j.others(j.root, "inference")
	}
	return j.all.search(j.root) // watcher.query_watches
}

// names gives a string, or the strings of a list, split at commas.
func (j *job) names(v *treeValue) (out []string) {
	switch {
	case v.isString():
		out = strings.Split(string(j.all.text(v)), ",")
	case v.isArray():
		for i := range v.kids {
			out = append(out, j.names(&v.kids[i])...)
		}
	}
	return out
}

// rules gives the rules of what is read from: all, where no index is named.
func (j *job) rules(indices []string) ([]*policy.Rule, error) {
	if len(indices) == 0 {
		return j.r.Policy.Rules, nil
	}
	in, err := j.r.reach(j.r.ctx, strings.Join(indices, ","))
	return in.rules, err
}

// reads guards those members of v that a search body may have too.
func (j *job) reads(indices []string, v *treeValue, members ...string) error {
	rules, err := j.rules(indices)
	if err != nil {
		return err
	}
	g := j.r.newGuard(rules, j.body) // without rules for documents of other indices
	for _, name := range members {
		if m := v.member(name); m != nil {
			if err := g.searchMember(v, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// others reads the members of v that are neither known for the kind nor read elsewhere.
func (j *job) others(v *treeValue, kind string, read ...string) error {
	return j.all.members(v, slices.Concat(jobMembers[kind], read)...)
}

// writes refuses a place that rules protect, unless whole documents are copied there from places under the same rules, or what is made
// there has names of its own: made, which is nil where they are not known.
func (j *job) writes(dest string, sources []string, copies bool, made []string) error {
	if dest == "" {
		return nil
	}
	to, err := j.r.place(j.r.ctx, dest)
	if err != nil || to.t == nil {
		return err
	}
	if !copies && made != nil {
		g := newGuard(to.t.rules, nil)
		for _, name := range made {
			if f := g.named([]byte(name), andAbove); f != nil {
				return refuse(400, "esproxy_unsealed_source", "what this makes at ["+f.Path+"] in the target ["+dest+"], where rule ["+f.Rule.Name+"] protects it, would not be sealed; give it another name, or write to an index that no rule names")
			}
		}
		return nil
	}
	if !copies || len(sources) == 0 {
		return refuse(400, "esproxy_unsealed_source", "the target ["+dest+"] is under rule ["+to.t.rules[0].Name+"], and what this would write there is not sealed; write to an index that no rule names")
	}
	for _, name := range sources {
		if strings.ContainsAny(name, "*") || name == "_all" {
			return refuse(400, "esproxy_unsealed_source", "name the source indices of a copy into a protected index one by one: each must be under the same rules")
		}
		if err := j.r.sameRules(name, to.t.rules, "the source ["+name+"]"); err != nil {
			return err
		}
	}
	return nil
}

// transform reads TransformConfig and its update.
func (j *job) transform() error {
	source, dest, pivot := j.root.member("source"), j.root.member("dest"), j.root.member("pivot")
	indices := j.names(source.member("index"))
	if err := j.reads(indices, source, "query", "runtime_mappings"); err != nil {
		return err
	}
	rules, err := j.rules(indices)
	if err != nil {
		return err
	}
	g := j.r.newGuard(rules, j.body)
	if by := pivot.member("group_by"); by != nil && len(rules) > 0 {
		for i := range by.kids { // {"name": {"terms": {…}}}, as in the sources of a composite aggregation
			for k := range by.kids[i].kids {
				if err := g.aggBody(&by.kids[i].kids[k], string(by.kids[i].kids[k].name)); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range [...]string{"aggregations", "aggs"} {
		if aggs := pivot.member(name); aggs != nil && len(rules) > 0 {
			if err := g.aggs(aggs); err != nil {
				return err
			}
		}
	}
	copies := j.root.member("latest") != nil
	var made []string
	if pivot != nil {
		made = []string{}
		for _, name := range [...]string{"group_by", "aggregations", "aggs"} {
			for _, one := range orNull(pivot.member(name)).kids {
				made = append(made, string(one.name))
			}
		}
	}
	names := j.names(dest.member("index"))
	for _, alias := range orNull(dest.member("aliases")).kids {
		names = append(names, j.names(alias.member("alias"))...)
	}
	for _, name := range names {
		if err := j.writes(name, indices, copies, made); err != nil {
			return err
		}
	}
	return j.others(j.root, "transform", "source", "dest", "pivot", "latest")
}

// enrich reads EnrichPolicy. What it copies goes into indices of its own.
func (j *job) enrich() error {
	var kinds []string
	for i := range j.root.kids {
		m := &j.root.kids[i]
		switch string(m.name) {
		case "match", "geo_match", "range":
			kinds = append(kinds, string(m.name))
			if err := j.reads(j.names(m.member("indices")), m, "query"); err != nil {
				return err
			}
			if err := j.others(m, "", "indices", "query", "match_field", "enrich_fields", "name", "elasticsearch_version"); err != nil {
				return err
			}
		}
	}
	return j.others(j.root, "enrich", kinds...)
}

// rollup reads the job of a rollup, which makes fields below the names of those that it reads: "price.max.value".
func (j *job) rollup(dest string, read ...string) error {
	made := []string{}
	var fields func(v *treeValue)
	fields = func(v *treeValue) {
		for i := range v.kids {
			if name := string(v.kids[i].name); name == "field" || name == "fields" {
				made = append(made, j.names(&v.kids[i])...)
			} else {
				fields(&v.kids[i])
			}
		}
	}
	fields(orNull(j.root.member("groups")))
	fields(orNull(j.root.member("metrics")))
	if err := j.writes(dest, nil, false, made); err != nil {
		return err
	}
	return j.others(j.root, "rollup", read...)
}

// anomalyJob reads the configuration of an anomaly detection job, which may hold that of its datafeed.
func (j *job) anomalyJob(v *treeValue) error {
	if feed := v.member("datafeed_config"); feed != nil {
		if err := j.datafeed(feed); err != nil {
			return err
		}
	}
	return j.others(v, "job", "datafeed_config")
}

func (j *job) datafeed(v *treeValue) error {
	indices := append(j.names(v.member("indices")), j.names(v.member("indexes"))...)
	if err := j.reads(indices, v, "query", "aggregations", "aggs", "script_fields", "runtime_mappings"); err != nil {
		return err
	}
	if v == j.root {
		if feed := v.member("datafeed_config"); feed != nil {
			if err := j.datafeed(feed); err != nil {
				return err
			}
		}
		if config := v.member("job_config"); config != nil {
			if err := j.anomalyJob(config); err != nil {
				return err
			}
		}
	}
	return j.others(v, "datafeed", "indices", "indexes", "query", "aggregations", "aggs", "script_fields", "runtime_mappings", "datafeed_config", "job_config")
}

// analytics reads the configuration of a data frame analytics job, which copies its source with results added.
func (j *job) analytics(v *treeValue) error {
	source := v.member("source")
	indices := j.names(source.member("index"))
	if err := j.reads(indices, source, "query", "runtime_mappings"); err != nil {
		return err
	}
	for _, name := range j.names(v.member("dest").member("index")) {
		if err := j.writes(name, indices, true, nil); err != nil {
			return err
		}
	}
	return j.others(v, "analytics", "source", "dest")
}

// watch reads the configuration of a watch (org.elasticsearch.xpack.watcher.watch.WatchParser).
func (j *job) watch(v *treeValue) error {
	if err := j.input(v.member("input")); err != nil {
		return err
	}
	if err := j.condition(v.member("condition")); err != nil {
		return err
	}
	if err := j.change(v.member("transform")); err != nil {
		return err
	}
	for i := range orNull(v.member("actions")).kids {
		action := &v.member("actions").kids[i]
		if err := j.condition(action.member("condition")); err != nil {
			return err
		}
		if err := j.change(action.member("transform")); err != nil {
			return err
		}
		if err := j.indexAction(action); err != nil {
			return err
		}
	}
	return j.others(v, "watch", "input", "condition", "transform", "actions")
}

// input reads one input: a search, a payload of the body's own, an HTTP request, or a chain of them.
func (j *job) input(v *treeValue) error {
	if err := j.change(v); err != nil {
		return err
	}
	if f := j.all.documentNames(v.member("simple"), ""); f != nil {
		return guardFault(f, "a simple input")
	}
	for i := range orNull(v.member("chain").member("inputs")).kids {
		named := &v.member("chain").member("inputs").kids[i]
		for k := range named.kids {
			if err := j.input(&named.kids[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// change reads a transform of a payload, or a search input: a search request, a script, or a chain of them.
func (j *job) change(v *treeValue) error {
	if request := v.member("search").member("request"); request != nil {
		body := request.member("body")
		rules, err := j.rules(j.names(request.member("indices")))
		if err != nil {
			return err
		}
		if template := request.member("template"); template != nil && len(rules) > 0 {
			if err := j.r.newGuard(rules, j.body).template(template, map[string]any{}); err != nil {
				return err
			}
		}
		if body != nil {
			g := j.r.newGuard(rules, j.body)
			if body.isString() && len(rules) > 0 {
				return refuse(400, "esproxy_protected_query", "the search of a watch is a text; write it as an object")
			}
			if err := g.search(body); err != nil {
				return err
			}
		}
	}
	if err := j.all.script(v.member("script"), nil); err != nil {
		return err
	}
	for i := range orNull(v.member("chain")).kids { // of transforms; the chain of inputs is an object
		if v.member("chain").isArray() {
			if err := j.change(&v.member("chain").kids[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// condition reads compare, array_compare and script conditions. The paths that they compare lead into the payload.
func (j *job) condition(v *treeValue) error {
	if err := j.all.script(v.member("script"), nil); err != nil {
		return err
	}
	for _, kind := range [...]string{"compare", "array_compare"} {
		for i := range orNull(v.member(kind)).kids {
			compared := &v.member(kind).kids[i]
			for _, f := range j.all.fields {
				if pathEnds(string(compared.name), f.Path) {
					return guardFault(f, "the condition ["+kind+"]")
				}
			}
			for k := range compared.kids { // array_compare: {"path": …, "eq": …} below the array's path
				if path := j.all.text(&compared.kids[k]); string(compared.kids[k].name) == "path" {
					for _, f := range j.all.fields {
						if pathEnds(string(path), f.Path) {
							return guardFault(f, "the condition ["+kind+"]")
						}
					}
				}
			}
		}
	}
	return nil
}

// pathEnds reports whether a path into a payload leads to the protected path of some document in it.
func pathEnds(path, protected string) bool {
	return path == protected || strings.HasSuffix(path, "."+protected) || strings.Contains(path, "."+protected+".")
}

// indexAction refuses an action that writes to a protected place, or to one that the payload names.
func (j *job) indexAction(action *treeValue) error {
	at := action.member("index")
	if at == nil {
		return nil
	}
	names := j.names(at.member("index"))
	if len(names) == 0 {
		return refuse(400, "esproxy_unsealed_source", "the action [index] of a watch takes its target from the payload, which may name a protected index; give the action an [index]")
	}
	for _, name := range names {
		if strings.Contains(name, "{{") {
			return refuse(400, "esproxy_unsealed_source", "the target of the action [index] is built while the watch runs and may be a protected index; name it")
		}
		if err := j.writes(name, nil, false, nil); err != nil {
			return err
		}
	}
	return nil
}

// execute reads a trial of a watch: the watch itself may be there, and a payload in place of its input.
func (j *job) execute() error {
	if w := j.root.member("watch"); w != nil {
		if err := j.watch(w); err != nil {
			return err
		}
	}
	if f := j.all.documentNames(j.root.member("alternative_input"), ""); f != nil {
		return guardFault(f, "the member [alternative_input]")
	}
	return j.others(j.root, "", "watch", "alternative_input", "trigger_data", "ignore_condition", "action_modes", "record_execution", "simulated_actions", "debug")
}

// follow carries the start of a follower index: its documents come from another cluster as they are there.
func (r *request) follow() (Transform, error) {
	return r.treeBody(func(body []byte, root *treeValue) ([]byte, error) {
		j := r.newJob(body, root)
		if r.api == "ccr.put_auto_follow_pattern" {
			return body, j.autoFollow()
		}
		return body, j.followOne()
	})
}

// followMembers are the members of follow requests that only set how fast and how far.
var followMembers = []string{
	"remote_cluster", "leader_index", "leader_index_patterns", "leader_index_exclusion_patterns", "follow_index_pattern", "settings", "data_stream_name",
	"max_outstanding_read_requests", "max_outstanding_write_requests", "max_read_request_operation_count", "max_read_request_size", "max_retry_delay",
	"max_write_buffer_count", "max_write_buffer_size", "max_write_request_operation_count", "max_write_request_size", "read_poll_timeout",
}

func (j *job) followOne() error {
	to, err := j.r.place(j.r.ctx, j.r.value("index"))
	if err != nil {
		return err
	}
	leader := string(j.all.text(orNull(j.root.member("leader_index"))))
	if to.t != nil && j.r.api == "ccr.follow" {
		for _, rule := range to.t.rules {
			if !rule.Matches(leader) {
				return refuse(400, "esproxy_unsealed_source", "the follower is under rule ["+rule.Name+"] and the leader's name is not, so its values are not sealed there; follow an index that the same rule names")
			}
		}
	}
	return j.others(j.root, "", followMembers...)
}

// autoFollow compares the patterns of leaders with those of what they become here.
func (j *job) autoFollow() error {
	leaders := j.names(j.root.member("leader_index_patterns"))
	follow := "{{leader_index}}"
	if v := j.root.member("follow_index_pattern"); v.isString() {
		follow = string(j.all.text(v))
	}
	for _, leader := range leaders {
		for _, rule := range j.r.Policy.Rules {
			one := &policy.Policy{Rules: []*policy.Rule{rule}}
			becomes := strings.ReplaceAll(follow, "{{leader_index}}", leader)
			if one.CouldMatch(becomes) && becomes != leader && !claimsAll(rule, leader) {
				return refuse(400, "esproxy_unsealed_source", "indices that follow by this pattern can fall under rule ["+rule.Name+"] while their leaders do not; choose a [follow_index_pattern] that no rule names, or leaders that it does")
			}
		}
	}
	return j.others(j.root, "", followMembers...)
}
