package main

// verdicts are explained in the order in which a reader looks for them: what writes, what reads, what changes
// mappings, what is refused, and last the long list of what passes. "A protected target" is an index, alias or data
// stream that a rule applies to, by the name in the request or by what it stands for.
var verdicts = []struct{ name, sentence, limits string }{
	{
		"bulk", "Every document is sealed, in `index`, `create` and `update` (`doc` and `upsert`); an item that cannot be sealed gets an error of its own in the reply, and the rest goes on.",
		"that a bulk is executed whole or not at all when it is cut in the middle: Elasticsearch 8 executes nothing of it, 9 what it had read of a large one.",
	},
	{"doc", "The document is sealed; where no rule applies to the target both bodies pass untouched.", ""},
	{"create", "The document is sealed, as for `doc`.", ""},
	{
		"update", "`doc` and `upsert` are sealed, after a look at the stored document where the subject is not in the request; a `script` is refused unless the rule allows scripts; `_source` in the reply is opened for a caller with a grant.",
		"under `scripts: allow`, anything that a script writes.",
	},
	{
		"update_by_query", "Constants on protected fields are refused in the query, and a script is refused unless the rule allows scripts.",
		"under `scripts: allow`, anything that a script writes.",
	},
	{"reindex", "Into a protected target it is allowed from indices under the same rules, without a script; from anywhere else, and from a remote cluster, it is refused.", ""},
	{"copy", "Clone, split and shrink are allowed where the source is under the same rules as the copy.", ""},
	{
		"search", "Constants on protected fields are refused, because they would stand upstream in clear and can match nothing; hits and inner hits are opened for a caller with a grant.",
		"values in aggregations, highlights, suggestions, sort values and script fields stay sealed for everybody.",
	},
	{"async", "As `search`; the query is kept by Elasticsearch until the search is deleted.", ""},
	{"async_get", "Hits are opened for a caller with a grant; without one the reply passes untouched.", ""},
	{"scroll", "Hits are opened for a caller with a grant; scroll ids are never changed.", ""},
	{"msearch", "As `search`, for each of the searches; one that is refused makes the request fail as a whole.", ""},
	{
		"search_template", "The proxy reads the template, looks a stored one up, fills the parameters in as Elasticsearch will, and judges what comes of it as for `search`; hits are opened for a caller with a grant. A template with partials, or one that writes an object as a text, cannot be judged and is refused with the reason.",
		"that a stored template is still the one that was looked up when Elasticsearch reads it.",
	},
	{"msearch_template", "As `search_template`, for each of the searches.", ""},
	{"render_template", "As `search_template`, with the rules of all indices, since it names none; the reply passes untouched.", ""},
	{
		"script", "A stored template is judged with every combination of its sections, a stored script like one in a search: constants beside the names of protected fields are refused. What parameters bring is judged when the script is used.",
		"names that a script builds while it runs, and scripts that were stored around the proxy.",
	},
	{"execute", "The trial's document is sealed as for the index that it names; constants beside the names of protected fields, in the script, its parameters and the query, are refused. The result passes as it is.", ""},
	{"rank_eval", "Each search is read as for `search`, each template as for `search_template`; the hits that show a document are opened for a caller with a grant.", ""},
	{
		"application", "The template of a search application is judged like a stored one; a search of it is filled in with the parameters of both and judged with the rules of its indices.",
		"that the application is still the one that was looked up when Elasticsearch reads it.",
	},
	{"query_rules", "Criteria are values for names of the client's choice: those for the name of a protected field of any rule are refused.", ""},
	{"event", "Passes where no rule applies to the data stream that Elasticsearch writes the event to, `behavioral_analytics-events-` with the collection's name; refused where one does.", ""},
	{"mget", "Documents are opened for a caller with a grant; without one the reply passes untouched.", ""},
	{"get", "The document is opened for a caller with a grant; without one the reply passes untouched.", ""},
	{
		"source", "The document is opened for a caller with a grant; without one the reply passes untouched.",
		"with `_source` filtered so that the subject is missing, the subject is looked up; where that fails the values stay sealed.",
	},
	{"explain", "Constants on protected fields are refused; the document in the reply is opened for a caller with a grant.", ""},
	{"query", "Constants on protected fields are refused; the reply holds no documents and passes untouched.", ""},
	{
		"job", "Work that Elasticsearch does later or tries out: queries and scripts are guarded like those of a search, each with the rules of the indices it reads; a protected target is refused, unless whole documents are copied there from indices under the same rules.",
		"what a job under another name builds of stored values; they are sealed when it reads them.",
	},
	{
		"follow", "A follower under a rule must follow a leader whose name is under the same rule; an auto-follow pattern must not rename indices into a rule.",
		"that the other cluster was written to through a proxy: documents come as they are there.",
	},
	{
		"restore", "An index that is restored or mounted under a new name must not come under a rule that did not name it before; settings are checked.",
		"what a snapshot holds: an index comes back with the values that it was saved with, and with its aliases.",
	},
	{"create_from", "The overrides of settings and mappings are checked against the rules of the new index.", ""},
	{
		"samples", "Raw text passes when it names no protected field, in UTF-8.",
		"values in a text that does not name the field.",
	},
	{"documents", "Documents that belong to no index pass when they hold no protected field of any rule.", ""},
	{"binary", "Passes, in protobuf only, where no rule can name the data streams that Elasticsearch makes of it; refused where one can.", ""},
	{"promql", "Passes when neither the query nor a selector names a protected field.", ""},
	{
		"simulate", "Documents that are run through a pipeline are sealed as for the index that they name, so that the pipeline sees what it will see; one that holds a protected field and names no index is refused. Pipelines in the body are checked as those that are stored.", "",
	},
	{
		"terms", "A text for a protected field, a made-up document that holds one, and vertices that name terms of one are refused; the reply shows what is stored.",
		"a value in a text that is analysed for no field, or for an unprotected one.",
	},
	{"monitoring", "Passes, as it goes into system indices; refused where a rule names these, or a document holds a protected field.", ""},
	{
		"esql", "The text is read: a protected field may be shown, sorted, grouped, counted and renamed, and not be compared or be put into an expression with a constant or a param, under any name. The rules are those of the indices that the text reads; all of them where it does not tell (`ENRICH`, unknown commands, names that are no index). Cells are opened for a caller with a grant, in columns that are called like the field, in rows that show the subject.",
		"constants that reach a protected field by a way the text does not show: an enrich policy that matches on one, a view that was stored around the proxy, a search over all fields (`QSTR`, `KQL` without a field).",
	},
	{
		"sql", "As `esql`. Pages after the first have no columns and stay sealed.",
		"as `esql`. Bodies in CBOR, as the JDBC and ODBC drivers send them, are refused: their text can't be read; switch the drivers' binary format off.",
	},
	{"eql", "As `esql`, with the rules of the indices in the path; events are opened for a caller with a grant, join keys stay sealed.", ""},
	{
		"table_get", "Cells are opened for a caller with a grant where one single rule of the policy has a field of that path, in rows that show the subject; without a grant the reply passes untouched.",
		"which index a row comes from: the request does not tell what was queried.",
	},
	{"events_get", "Events are opened for a caller with a grant; without one the reply passes untouched.", ""},
	{"view", "The query of a view is guarded like one that is run. The view's name must be under the rules of what it reads, and protected fields must keep their names, so that queries of the view are guarded too.", ""},
	{"terms_enum", "The terms of a protected field are not listed, and constants on protected fields in the filter are refused.", ""},
	{"create_index", "Protected fields get the mapping that sealed values need; a body whose own mapping, settings, aliases or runtime fields work against sealed values is refused, with the right mapping shown.", ""},
	{"rollover", "As `create_index` where the body defines the new index; without a body it passes, and the first write sees to the mapping.", ""},
	{"mapping", "Protected fields get the mapping that sealed values need; a definition that works against sealed values is refused.", ""},
	{"index_template", "As `mapping`, for every rule that the template's patterns can meet.", "templates that were stored around the proxy; the first write to an index of theirs checks its mapping."},
	{"component_template", "Definitions that work against sealed values are refused, whatever index they end up in.", ""},
	{"legacy_template", "As `index_template`.", ""},
	{"simulate_template", "A template in the body is checked like one that is stored.", ""},
	{"pipeline", "Processors that write to protected fields, or send documents to other indices, are refused.", "pipelines that were stored around the proxy."},
	{"settings", "Settings of protected indices that lose `_source` or change how sealed values are kept are refused.", ""},
	{"aliases", "Constants on protected fields in the filter of an alias are refused.", ""},
	{"roles", "Constants on protected fields are refused in the queries of roles and of API keys (document level security), which Elasticsearch keeps in clear.", ""},
	{"unprotected", "Passes, both bodies untouched, where no rule applies to any target; refused for protected targets, for the reason that its row gives.", ""},
	{"refuse", "Refused with `esproxy_refused_endpoint`, unless the policy has no rules or every target in the path is a system index that no rule names.", ""},
	{
		"admin", "The body is read strictly and passes as it is. Members that Elasticsearch's specification gives this API pass whatever they are called; any other is refused when it holds a value, a query or a script for a protected field.",
		"that nobody puts a protected value into what the API documents, such as a description or the metadata of a user.",
	},
	{
		"pass", "Passes as it is. The API takes no body: one that holds something is refused, as Elasticsearch does too, unless no rule applies to the index in the path.",
		"that nobody puts a protected value into the name of an index or an object: it goes up as written, unless it begins with the path of a protected field and a colon or an equals sign.",
	},
}

// replies are the verdicts on replies. Of a caller without a grant every reply passes byte for byte, but for items and the addresses of nodes.
var replies = []struct{ name, sentence string }{
	{"pass", "The reply passes byte for byte, for every caller. Sealed values in it stay sealed."},
	{"open", "For a caller with a grant, sealed values are opened where Elasticsearch writes documents. Without a grant the reply passes byte for byte."},
	{"items", "As `open`, for documents that updates return; and items that the proxy refused are put in at their places."},
	{"nodes", "For every caller, `publish_address` and `bound_address` of each node's `http` become the proxy's own address (JSON; 406 for other forms that hold one), unless `ESPROXY_DISCOVERY=pass`. Transport addresses and settings stay."},
	{"cat_nodes", "For every caller, the column `http_address` (`http`) shows the proxy's own address (text and JSON; 406 for other forms), unless `ESPROXY_DISCOVERY=pass`."},
	{"none", "There is no reply of Elasticsearch where the request is refused. Where it passes, its reply passes byte for byte."},
}
