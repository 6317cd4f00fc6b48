package rewrite

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const guardPolicy = `version: 1
rules:
  - name: users
    indices: ["user", "user-*"]
    subject: username
    fields:
      credit_card_num: {mode: encrypt}
      credit_card_ccv: {mode: drop}
      payment.cards.pan: {mode: encrypt}
      secret: {mode: encrypt}
  - name: names
    indices: ["people"]
    fields:
      name: {mode: encrypt}
`

func guardRules(t testing.TB) (*Engine, []*policy.Rule) {
	t.Helper()
	e := &Engine{Policy: fakePolicy(t, guardPolicy)}
	return e, e.Policy.Rules[:1]
}

// guardPasses are bodies that Kibana and ordinary clients send.
var guardPasses = []string{
	``, ` `, `{}`, `{"query":{"match_all":{}}}`, `{"query":null}`,
	// Discover
	`{"track_total_hits":false,"sort":[{"@timestamp":{"order":"desc","format":"strict_date_optional_time","unmapped_type":"boolean"}},{"_doc":{"order":"desc","unmapped_type":"boolean"}}],"fields":[{"field":"*","include_unmapped":true},{"field":"@timestamp","format":"strict_date_optional_time"}],"size":500,"version":true,"script_fields":{},"stored_fields":["*"],"runtime_mappings":{},"_source":false,"query":{"bool":{"must":[],"filter":[{"range":{"@timestamp":{"format":"strict_date_optional_time","gte":"2026-01-01","lte":"2026-02-01"}}}],"should":[],"must_not":[]}},"highlight":{"pre_tags":["@kibana-highlighted-field@"],"post_tags":["@/kibana-highlighted-field@"],"fields":{"*":{}},"fragment_size":2147483647}}`,
	`{"size":0,"aggs":{"2":{"date_histogram":{"field":"@timestamp","fixed_interval":"30s","time_zone":"UTC","min_doc_count":1,"extended_bounds":{"min":1,"max":2}}}},"query":{"match_all":{}}}`,
	`{"query":{"bool":{"filter":[{"multi_match":{"type":"best_fields","query":"4111","lenient":true}}]}}}`,
	`{"query":{"bool":{"filter":[{"multi_match":{"type":"phrase","query":"a b","lenient":true,"fields":["*"]}}]}}}`,
	`{"query":{"query_string":{"query":"*","analyze_wildcard":true}}}`,
	`{"query":{"query_string":{"query":"status:200 AND NOT agent:\"Mozilla/5.0 (X11: Linux)\"","default_field":"*","time_zone":"UTC"}}}`,
	`{"query":{"query_string":{"query":"_exists_:credit_card_num"}}}`,
	`{"query":{"query_string":{"query":"credit_card_num:*"}}}`,
	`{"query":{"query_string":{"query":"NOT credit_card_num : * OR a:b"}}}`,
	`{"query":{"query_string":{"query":"@timestamp:[2020-01-01T00:00:00 TO now]"}}}`,
	`{"query":{"simple_query_string":{"query":"credit_card_num + \"a b\"","fields":["title^2","body"]}}}`,
	`{"query":{"bool":{"filter":{"exists":{"field":"credit_card_num"}}}}}`,
	`{"query":{"bool":{"must_not":[{"exists":{"field":"payment.cards.pan"}}]}}}`,
	`{"query":{"bool":{"minimum_should_match":1,"should":[{"exists":{"field":"credit_card_num"}}]}}}`,
	`{"query":{"term":{"username":"Ana"}}}`, `{"query":{"term":{"username":{"value":"Ana","boost":2}}}}`, `{"query":{"terms":{"username":["Ana","Bo"],"boost":1}}}`,
	`{"query":{"terms":{"username":{"index":"x","id":"1","path":"credit_card_num"}}}}`,
	`{"query":{"match":{"credit_card_number":"4111"}}}`, `{"query":{"match":{"Credit_Card_Num":"4111"}}}`, `{"query":{"match":{"my.credit_card_num":"x"}}}`,
	`{"query":{"match":{"payments":"x"}}}`, `{"query":{"match":{"payment_date":"x"}}}`,
	`{"query":{"match_phrase":{"message":{"query":"credit_card_num is 4"}}}}`, `{"query":{"wildcard":{"message":{"value":"credit_card_num*"}}}}`,
	`{"query":{"term":{"field":"credit_card_num"}}}`,
	`{"query":{"nested":{"path":"payment.cards","query":{"term":{"payment.cards.type":"visa"}},"inner_hits":{"size":3}}}}`,
	`{"query":{"nested":{"path":"payment.cards","query":{"exists":{"field":"payment.cards.pan"}}}}}`,
	`{"query":{"function_score":{"query":{"match_all":{}},"functions":[{"filter":{"term":{"a":1}},"weight":2},{"gauss":{"date":{"origin":"now","scale":"1d"}}},{"random_score":{"seed":1,"field":"_seq_no"}},{"field_value_factor":{"field":"likes","missing":1}}],"score_mode":"sum"}}}`,
	`{"query":{"script_score":{"query":{"match_all":{}},"script":{"source":"_score * params.x * doc['n'].value","params":{"x":2}}}}}`,
	`{"query":{"ids":{"values":["1","2"]}}}`, `{"query":{"prefix":{"username":"A"}}}`, `{"query":{"range":{"age":{"gte":1}}}}`,
	`{"query":{"intervals":{"body":{"all_of":{"intervals":[{"match":{"query":"a"}}],"ordered":true}}}}}`,
	`{"query":{"more_like_this":{"fields":["title"],"like":[{"_index":"a","_id":"1"},"text"]}}}`,
	`{"query":{"percolate":{"field":"query","document":{"message":"credit_card_num"}}}}`,
	`{"query":{"geo_distance":{"distance":"1km","location":{"lat":1,"lon":2}}}}`,
	`{"query":{"script":{"script":{"source":"doc['credit_card_num'].size() == 0"}}}}`,
	`{"query":{"script":{"script":"doc['a'].value == 'credit_card'"}}}`,
	`{"query":{"some_plugin":{"field":"x","query":"4111","inner":{"deep":[1,{"a":"b"}]}}}}`,
	`{"query":{"pinned":{"ids":["1"],"organic":{"match":{"title":"x"}}}}}`,
	`{"query":{"wrapper":{"query":"` + base64.StdEncoding.EncodeToString([]byte(`{"term":{"a":1}}`)) + `"}}}`,
	`{"query":{"dis_max":{"queries":[{"term":{"a":1}},{"exists":{"field":"secret"}}],"tie_breaker":0.7}}}`,
	`{"query":{"span_near":{"clauses":[{"span_term":{"a":"x"}},{"span_term":{"a":"y"}}],"slop":1}}}`,
	`{"query":{"semantic":{"field":"body","query":"credit_card_num"}}}`,
	`{"fields":["credit_card_num","payment.*"],"_source":["credit_card_num"],"docvalue_fields":[{"field":"credit_card_num"}],"stored_fields":["credit_card_num"]}`,
	`{"_source":{"includes":["credit_card_num"],"excludes":["secret"]}}`, `{"_source":true}`,
	`{"sort":"credit_card_num"}`, `{"sort":["credit_card_num",{"a":"asc"}]}`, `{"sort":[{"credit_card_num":"desc"}]}`, `{"sort":[{"credit_card_num":{"order":"asc","missing":"_last","unmapped_type":"keyword"}}]}`,
	`{"sort":[{"age":{"order":"asc","missing":4111}}],"search_after":[4111,"x"]}`,
	`{"sort":[{"_script":{"type":"number","script":{"source":"doc['a'].value * params.f","params":{"f":2}},"order":"asc"}}]}`,
	`{"sort":[{"payment.cards.date":{"order":"asc","nested":{"path":"payment.cards","filter":{"term":{"payment.cards.type":"visa"}}}}}]}`,
	`{"aggs":{"credit_card_num":{"terms":{"field":"credit_card_num","size":10,"order":{"_count":"desc"}}}}}`,
	`{"aggs":{"0":{"terms":{"field":"credit_card_num","order":{"credit_card_num":"desc"},"size":5,"shard_size":25},"aggs":{"credit_card_num":{"cardinality":{"field":"credit_card_num","precision_threshold":100}}}}}}`,
	`{"aggs":{"a":{"missing":{"field":"credit_card_num"}},"b":{"value_count":{"field":"secret"}}}}`,
	`{"aggs":{"a":{"filters":{"filters":{"credit_card_num":{"exists":{"field":"credit_card_num"}},"x":{"term":{"a":1}}}}}}}`,
	`{"aggs":{"a":{"terms":{"field":"username","include":"A.*","exclude":["Ana"],"missing":"none"}}}}`,
	`{"aggs":{"a":{"composite":{"size":10,"sources":[{"credit_card_num":{"terms":{"field":"credit_card_num","missing_bucket":true,"order":"asc"}}},{"b":{"terms":{"field":"age"}}}],"after":{"b":3}}}}}`,
	`{"aggs":{"a":{"terms":{"field":"x"},"aggs":{"t":{"top_hits":{"size":1,"_source":["credit_card_num"],"sort":[{"credit_card_num":"asc"}]}}}}}}`,
	`{"aggs":{"a":{"top_metrics":{"metrics":[{"field":"credit_card_num"},{"field":"age"}],"sort":{"@timestamp":"desc"},"size":1}}}}`,
	`{"aggs":{"a":{"range":{"field":"age","ranges":[{"to":10,"key":"young"},{"from":10}]}}}}`,
	`{"aggs":{"a":{"significant_terms":{"field":"credit_card_num","background_filter":{"term":{"a":1}}}}}}`,
	`{"aggs":{"a":{"multi_terms":{"terms":[{"field":"username"},{"field":"credit_card_num"}]}}}}`,
	`{"aggs":{"a":{"bucket_script":{"buckets_path":{"credit_card_num":"x>y"},"script":{"source":"params.credit_card_num / params.b","params":{}}}}}}`,
	`{"aggs":{"a":{"nested":{"path":"payment.cards"},"aggregations":{"b":{"terms":{"field":"payment.cards.pan"}}},"meta":{"credit_card_num":"a column"}}}}`,
	`{"aggs":{"a":{"scripted_metric":{"init_script":"state.t=[]","map_script":"state.t.add(doc['n'].value)","combine_script":"return state.t","reduce_script":"return states","params":{"x":4111}}}}}`,
	`{"highlight":{"fields":{"credit_card_num":{},"body":{"highlight_query":{"match":{"body":"x"}},"matched_fields":["secret"]}},"require_field_match":false}}`,
	`{"highlight":{"fields":[{"credit_card_num":{"number_of_fragments":0}}]}}`,
	`{"collapse":{"field":"credit_card_num","inner_hits":[{"name":"x","size":1,"sort":[{"secret":"asc"}]}]}}`,
	`{"suggest":{"text":"x","credit_card_num":{"term":{"field":"title"}},"p":{"prefix":"a","completion":{"field":"title.suggest","fuzzy":{"fuzziness":2}}}}}`,
	`{"rescore":{"window_size":50,"query":{"rescore_query":{"match_phrase":{"body":"x"}},"query_weight":0.7}}}`,
	`{"runtime_mappings":{"day":{"type":"keyword","script":{"source":"emit(doc['t'].value.dayOfWeekEnum.getDisplayName(TextStyle.FULL, Locale.ROOT))"}}}}`,
	`{"runtime_mappings":{"len":{"type":"long","script":{"source":"emit(params._source['credit_card_num'].length())"}}}}`,
	`{"script_fields":{"x":{"script":{"source":"doc['bytes'].value * params.k","params":{"k":1024},"lang":"painless"}}}}`,
	`{"script_fields":{"x":{"script":{"source":"params['_source']['credit_card_num']"}}}}`,
	`{"script_fields":{"x":{"script":{"source":"doc['user.name'].value + ' credit_card_num'"}}}}`,
	`{"knn":{"field":"vec","query_vector":[1,2],"k":3,"num_candidates":5,"filter":{"term":{"username":"Ana"}}}}`,
	`{"retriever":{"rrf":{"retrievers":[{"standard":{"query":{"match":{"title":"x"}},"sort":["credit_card_num"]}},{"knn":{"field":"vec","query_vector":[1],"k":1,"num_candidates":1}}],"rank_window_size":10}}}`,
	`{"retriever":{"text_similarity_reranker":{"retriever":{"standard":{"query":{"match_all":{}}}},"field":"body","inference_id":"m","inference_text":"credit_card_num"}}}`,
	`{"pit":{"id":"abc","keep_alive":"1m"},"slice":{"id":0,"max":2},"post_filter":{"term":{"a":1}},"indices_boost":[{"user":2}],"min_score":0.5,"profile":true,"explain":true,"timeout":"1s","ext":{"foo":{"bar":1}},"stats":["credit_card_num"]}`,
	`{"query":"process where process.name == \"x\"","filter":{"exists":{"field":"secret"}}}`,
	`{"query":"FROM user | KEEP credit_card_num | LIMIT 10"}`,
}

// guardRefuses are bodies that hold the constant 4111 for a protected field.
var guardRefuses = []string{
	`{"query":{"term":{"credit_card_num":"4111"}}}`, `{"query":{"term":{"credit_card_num":{"value":"4111"}}}}`, `{"query":{"term":{"credit\u005fcard_num":4111}}}`,
	`{"query":{"term":{"credit_card_num.keyword":"4111"}}}`, `{"query":{"term":{"payment.cards.pan":"4111"}}}`, `{"query":{"term":{"payment.cards":"4111"}}}`, `{"query":{"term":{"payment":{"cards.pan":"4111"}}}}`,
	`{"query":{"term":{"credit_card_ccv":"4111"}}}`, `{"query":{"terms":{"credit_card_num":["4111"]}}}`, `{"query":{"terms":{"boost":1,"credit_card_num":["4111"]}}}`,
	`{"query":{"terms":{"credit_card_num":{"index":"x","id":"4111","path":"y"}}}}`, `{"query":{"terms_set":{"credit_card_num":{"terms":["4111"],"minimum_should_match":1}}}}`,
	`{"query":{"match":{"credit_card_num":"4111"}}}`, `{"query":{"match":{"credit_card_num":{"query":"4111","boost":2}}}}`, `{"query":{"match_phrase":{"credit_card_num":"4111"}}}`,
	`{"query":{"match_phrase_prefix":{"credit_card_num":"4111"}}}`, `{"query":{"match_bool_prefix":{"credit_card_num":"4111"}}}`,
	`{"query":{"multi_match":{"query":"4111","fields":["a","credit_card_num^3"]}}}`, `{"query":{"multi_match":{"fields":"credit*","query":"4111"}}}`, `{"query":{"multi_match":{"fields":["*_num"],"query":"4111"}}}`,
	`{"query":{"multi_match":{"fields":["credit_*.keyword"],"query":"4111"}}}`, `{"query":{"multi_match":{"fields":["payment.*"],"query":"4111"}}}`,
	`{"query":{"combined_fields":{"query":"4111","fields":["credit_card_num"]}}}`, `{"query":{"simple_query_string":{"query":"4111","fields":["credit_card_num"]}}}`,
	`{"query":{"query_string":{"query":"4111","default_field":"credit_card_num"}}}`, `{"query":{"query_string":{"query":"4111","fields":["secret"]}}}`,
	`{"query":{"query_string":{"query":"credit_card_num:4111"}}}`, `{"query":{"query_string":{"query":"a:b AND (+credit_card_num:\"4111\")"}}}`, `{"query":{"query_string":{"query":"-credit_card_num : 4111"}}}`,
	`{"query":{"query_string":{"query":"credit\\_card\\_num:4111"}}}`, `{"query":{"query_string":{"query":"\\u0063redit_card_num:4111"}}}`, `{"query":{"query_string":{"query":"credit\\*:4111"}}}`,
	`{"query":{"query_string":{"query":"/\"/ credit_card_num:4111"}}}`, `{"query":{"query_string":{"query":"a&&credit_card_num:4111"}}}`, `{"query":{"query_string":{"query":"credit_card_num:[4111 TO *]"}}}`,
	`{"query":{"query_string":{"query":"credit_card_num:*4111"}}}`, `{"query":{"query_string":{"query":"payment.cards.pan:(4111 OR 2)"}}}`,
	`{"query":{"range":{"credit_card_num":{"gte":"4111"}}}}`, `{"query":{"prefix":{"credit_card_num":"4111"}}}`, `{"query":{"wildcard":{"credit_card_num":{"value":"4111*"}}}}`, `{"query":{"regexp":{"credit_card_num":"4111.*"}}}`, `{"query":{"fuzzy":{"credit_card_num":"4111"}}}`,
	`{"query":{"intervals":{"credit_card_num":{"match":{"query":"4111"}}}}}`, `{"query":{"intervals":{"a":{"match":{"query":"4111","use_field":"credit_card_num"}}}}}`,
	`{"query":{"span_term":{"credit_card_num":"4111"}}}`, `{"query":{"span_near":{"clauses":[{"span_term":{"a":"b"}},{"span_multi":{"match":{"prefix":{"secret":"4111"}}}}]}}}`, `{"query":{"span_first":{"match":{"span_term":{"secret":"4111"}},"end":3}}}`,
	`{"query":{"field_masking_span":{"query":{"span_term":{"a":"4111"}},"field":"secret"}}}`,
	`{"query":{"more_like_this":{"fields":["credit_card_num"],"like":"4111"}}}`, `{"query":{"more_like_this":{"like":[{"_index":"x","doc":{"credit_card_num":"4111"}}]}}}`, `{"query":{"more_like_this":{"unlike":{"doc":{"payment":{"cards":[{"pan":"4111"}]}}}}}}`,
	`{"query":{"percolate":{"field":"q","document":{"payment.cards":{"pan":"4111"}}}}}`, `{"query":{"percolate":{"field":"q","documents":[{"a":1},{"credit_card_num.":"4111"}]}}}`,
	`{"query":{"distance_feature":{"field":"credit_card_num","origin":"4111","pivot":"1"}}}`, `{"query":{"semantic":{"field":"credit_card_num","query":"4111"}}}`, `{"query":{"some_plugin":{"field":"credit_card_num","q":"4111"}}}`, `{"query":{"some_plugin":{"credit_card_num":"4111"}}}`, `{"query":{"some_plugin":{"x":[{"credit_card_num":{"y":"4111"}}]}}}`,
	`{"query":{"bool":{"must":[{"bool":{"filter":{"bool":{"must_not":{"term":{"secret":"4111"}}}}}}]}}}`, `{"query":{"constant_score":{"filter":{"term":{"secret":"4111"}},"boost":2}}}`, `{"query":{"boosting":{"positive":{"match_all":{}},"negative":{"term":{"secret":"4111"}}}}}`,
	`{"query":{"nested":{"path":"payment.cards","query":{"term":{"payment.cards.pan":"4111"}}}}}`, `{"query":{"function_score":{"functions":[{"filter":{"term":{"secret":"4111"}}}]}}}`, `{"query":{"function_score":{"field_value_factor":{"field":"secret","missing":4111}}}}`, `{"query":{"function_score":{"gauss":{"secret":{"origin":4111,"scale":1}}}}}`,
	`{"query":{"has_child":{"type":"x","query":{"term":{"secret":"4111"}}}}}`, `{"query":{"pinned":{"ids":["1"],"organic":{"term":{"secret":"4111"}}}}}`, `{"query":{"dis_max":{"queries":[{"term":{"a":1}},{"term":{"secret":"4111"}}]}}}`,
	`{"query":{"wrapper":{"query":"` + base64.StdEncoding.EncodeToString([]byte(`{"term":{"secret":"4111"}}`)) + `"}}}`, `{"query":{"wrapper":{"query":"4111"}}}`,
	`{"query":{"script":{"script":{"source":"doc['credit_card_num'].value == params.x","params":{"x":"4111"}}}}}`, `{"query":{"script":{"script":"doc['credit_card_num'].value == '4111'"}}}`, `{"query":{"script":{"script":"['4111'].contains(params._source.payment.cards[0].pan)"}}}`, `{"query":{"script":{"script":{"source":"params._source.secret == 4111"}}}}`,
	`{"post_filter":{"term":{"secret":"4111"}}}`, `{"index_filter":{"term":{"secret":"4111"}}}`, `{"filter":{"term":{"secret":"4111"}}}`, `{"rescore":[{"query":{"rescore_query":{"term":{"secret":"4111"}}}}]}`,
	`{"collapse":{"field":"a","inner_hits":{"highlight":{"highlight_query":{"term":{"secret":"4111"}}}}}}`, `{"highlight":{"fields":{"a":{"highlight_query":{"term":{"secret":"4111"}}}}}}`, `{"highlight":{"highlight_query":{"term":{"secret":"4111"}}}}`,
	`{"knn":{"field":"v","query_vector":[1],"filter":{"term":{"secret":"4111"}}}}`, `{"knn":[{"field":"v","filter":[{"term":{"secret":"4111"}}]}]}`, `{"query":{"knn":{"field":"v","filter":{"term":{"secret":"4111"}}}}}`,
	`{"retriever":{"standard":{"query":{"term":{"secret":"4111"}}}}}`, `{"retriever":{"rrf":{"retrievers":[{"standard":{"query":{"match_all":{}}}},{"retriever":{"standard":{"filter":{"term":{"secret":"4111"}}}},"weight":2}]}}}`, `{"retriever":{"rrf":{"fields":["secret"],"query":"4111"}}}`, `{"retriever":{"linear":{"retrievers":[{"retriever":{"knn":{"field":"v","filter":{"term":{"secret":"4111"}}}}}]}}}`, `{"retriever":{"standard":{"sort":["secret"],"search_after":["4111"]}}}`,
	`{"retriever":{"text_similarity_reranker":{"retriever":{"standard":{}},"field":"secret","inference_text":"4111"}}}`,
	`{"sort":[{"secret":{"missing":"4111"}}]}`, `{"sort":[{"secret":"4111"}]}`, `{"search_after":["4111"],"sort":["secret"]}`, `{"sort":[{"a":"asc"},{"secret":"asc"}],"search_after":[1,"4111"]}`, `{"sort":[{"a":{"nested":{"path":"x","filter":{"term":{"secret":"4111"}}}}}]}`,
	`{"aggs":{"a":{"terms":{"field":"secret","include":["4111"]}}}}`, `{"aggs":{"a":{"terms":{"exclude":"4111","field":"secret"}}}}`, `{"aggs":{"a":{"terms":{"field":"secret","missing":"4111"}}}}`, `{"aggregations":{"a":{"range":{"field":"secret","ranges":[{"from":4111}]}}}}`,
	`{"aggs":{"a":{"cardinality":{"field":"credit_card_num.keyword","missing":"4111"}}}}`, `{"aggs":{"a":{"composite":{"sources":[{"x":{"terms":{"field":"secret"}}}],"after":{"x":"4111"}}}}}`, `{"aggs":{"a":{"composite":{"sources":[],"after":{"secret":"4111"}}}}}`, `{"aggs":{"a":{"composite":{"after":{"x":"4111"},"sources":{"x":{"terms":{"script":"doc['secret'].value"}}}}}}}`,
	`{"aggs":{"a":{"filter":{"term":{"secret":"4111"}}}}}`, `{"aggs":{"a":{"filters":{"filters":[{"term":{"secret":"4111"}}]}}}}`, `{"aggs":{"a":{"adjacency_matrix":{"filters":{"x":{"term":{"secret":"4111"}}}}}}}`, `{"aggs":{"a":{"terms":{"field":"x"},"aggs":{"b":{"filter":{"term":{"secret":"4111"}}}}}}}`,
	`{"aggs":{"a":{"multi_terms":{"terms":[{"field":"a"},{"field":"secret","missing":"4111"}]}}}}`, `{"aggs":{"a":{"weighted_avg":{"value":{"field":"secret","missing":4111},"weight":{"field":"w"}}}}}`, `{"aggs":{"a":{"matrix_stats":{"fields":["secret"],"missing":{"secret":4111}}}}}`, `{"aggs":{"a":{"percentile_ranks":{"field":"secret","values":[4111]}}}}`,
	`{"aggs":{"a":{"scripted_metric":{"map_script":"if (doc['secret'].value == params.x) {}","params":{"x":"4111"}}}}}`, `{"aggs":{"a":{"terms":{"field":"secret","script":{"source":"_value == params.x","params":{"x":"4111"}}}}}}`, `{"aggs":{"a":{"significant_terms":{"field":"x","background_filter":{"term":{"secret":"4111"}}}}}}`, `{"aggs":{"a":{"top_hits":{"script_fields":{"x":{"script":{"source":"doc['secret'].value + '4111'"}}}}}}}`,
	`{"aggs":{"a":{"t_test":{"a":{"field":"x","filter":{"term":{"secret":"4111"}}},"b":{"field":"y"}}}}}`, `{"aggs":{"a":{"frequent_item_sets":{"fields":[{"field":"secret","exclude":["4111"]}]}}}}`,
	`{"suggest":{"x":{"text":"4111","term":{"field":"secret"}}}}`, `{"suggest":{"text":"4111","x":{"phrase":{"field":"a","direct_generator":[{"field":"secret"}]}}}}`, `{"suggest":{"x":{"prefix":"4111","completion":{"field":"secret"}}}}`,
	`{"runtime_mappings":{"secret":{"type":"keyword"}}}`, `{"runtime_mappings":{"username":{"type":"keyword","script":"emit('4111')"}}}`, `{"runtime_mappings":{"x":{"type":"keyword","script":{"source":"emit(params._source.secret == params.x ? 'y':'n')","params":{"x":"4111"}}}}}`, `{"runtime_mappings":{"payment.cards":{"type":"composite","script":"emit('4111')","fields":{"pan":{"type":"keyword"}}}}}`,
	`{"script_fields":{"x":{"script":{"source":"doc['secret'].value == params.x","params":{"x":"4111"}}}}}`, `{"ext":{"foo":{"secret":"4111"}}}`, `{"foo":{"query":{"query_string":{"query":"secret:4111"}}}}`, `{"source":{"query":{"term":{"secret":"4111"}}}}`, `{"sub_searches":[{"query":{"term":{"secret":"4111"}}}]}`,
	`{"query":"SELECT * FROM user WHERE credit_card_num = 4111"}`, `{"query":"SELECT 1 FROM user WHERE credit_card_num IN (?)","params":["4111"]}`, `{"field":"secret","string":"4111"}`,
}

func TestGuardQuery(t *testing.T) {
	e, rules := guardRules(t)
	if len(guardPasses) < 60 || len(guardRefuses) < 60 {
		t.Fatalf("%d and %d cases", len(guardPasses), len(guardRefuses))
	}
	for _, body := range guardPasses {
		if _, err := e.guardQuery(rules, []byte(body)); err != nil {
			t.Errorf("%s\n\t%v", body, err)
		}
	}
	for _, body := range guardRefuses {
		_, err := e.guardQuery(rules, []byte(body))
		guardWantFault(t, body, err)
	}
}

func guardWantFault(t *testing.T, body string, err error) {
	t.Helper()
	var f *Fault
	switch {
	case !errors.As(err, &f):
		t.Errorf("%s\n\tpassed (%v)", body, err)
	case f.Status != 400 || f.Type != "esproxy_protected_query":
		t.Errorf("%s\n\t%d %v", body, f.Status, f)
	case strings.Contains(f.Reason, "4111"):
		t.Errorf("%s\n\tthe reason quotes the constant: %s", body, f.Reason)
	}
}

// A protected field whose name is also a word of the grammar must not hide searches on other fields.
func TestGuardGrammarWords(t *testing.T) {
	e := &Engine{Policy: fakePolicy(t, `{version: 1, rules: [{name: r, indices: [x], fields: {name: {mode: encrypt}, value: {mode: encrypt}, query: {mode: encrypt}, type: {mode: encrypt}, size: {mode: encrypt}, order: {mode: encrypt}, key: {mode: encrypt}, boost: {mode: encrypt}, id: {mode: encrypt}}}]}`)}
	for _, body := range []string{
		`{"size":1,"query":{"bool":{"must":[{"term":{"a":{"value":1,"boost":2}}},{"match":{"b":{"query":"x"}}},{"nested":{"path":"a","query":{"match_all":{}}}}],"boost":1}},"sort":[{"_script":{"type":"number","order":"asc","script":"1"}}],"slice":{"id":1,"max":2},"pit":{"id":"x"}}`,
		`{"query":{"has_child":{"type":"x","query":{"match_all":{}}}}}`,
		`{"query":{"terms":{"a":{"index":"x","id":"1","path":"p"}}}}`,
		`{"query":{"multi_match":{"query":"x","type":"phrase"}}}`,
		`{"collapse":{"field":"a","inner_hits":{"name":"x","size":2}}}`,
	} {
		if _, err := e.guardQuery(e.Policy.Rules, []byte(body)); err != nil {
			t.Errorf("%s\n\t%v", body, err)
		}
	}
	for _, body := range []string{`{"query":{"term":{"name":"4111"}}}`, `{"query":{"bool":{"must":{"match":{"query":{"query":"4111"}}}}}}`, `{"query":{"query_string":{"query":"type:4111"}}}`} {
		_, err := e.guardQuery(e.Policy.Rules, []byte(body))
		guardWantFault(t, body, err)
	}
}

func TestGuardInfo(t *testing.T) {
	e, rules := guardRules(t)
	for body, want := range map[string]queryInfo{
		`{}`:                   {},
		`{"_source":true}`:     {},
		`{"_source":false}`:    {sourceFiltered: true},
		`{"_source":["a"]}`:    {sourceFiltered: true},
		`{"stored_fields":[]}`: {sourceFiltered: true},
		`{"pit":{"id":"x"}}`:   {},
		`{"collapse":{"field":"a","inner_hits":{"name":"i","_source":"a"}}}`:                                                         {sourceFiltered: true},
		`{"query":{"nested":{"path":"p","query":{"match_all":{}},"inner_hits":{"_source":false}}}}`:                                  {sourceFiltered: true},
		`{"aggs":{"t":{"top_hits":{"size":1}},"u":{"terms":{"field":"a"},"aggs":{"v":{"global":{},"aggs":{"w":{"top_hits":{}}}}}}}}`: {topHits: [][]string{{"t"}, {"u", "[]", "v", "w"}}},
	} {
		got, err := e.guardQuery(rules, []byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(queryInfo{})); d != "" {
			t.Errorf("%s: %s", body, d)
		}
	}
}

func TestGuardBadBody(t *testing.T) {
	e, rules := guardRules(t)
	for _, body := range []string{`{`, `{"query":{"term":{"a":1}},"query":{"term":{"secret":"4111"}}}`, "\xEF\xBB\xBF{}", `{}{}`, `{/**/}`} {
		_, err := e.guardQuery(rules, []byte(body))
		var f *Fault
		if !errors.As(err, &f) || f.Status != 400 || f.Type != "esproxy_bad_request" || strings.Contains(f.Reason, "4111") {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestGuardURL(t *testing.T) {
	_, rules := guardRules(t)
	for _, good := range [][][2]string{
		nil, {{"q", "4111"}}, {{"q", "username:Ana"}, {"df", "*"}}, {{"q", "_exists_:secret"}}, {{"df", "secret"}}, {{"sort", "secret:asc"}, {"stored_fields", "secret"}, {"docvalue_fields", "secret"}, {"_source", "secret"}},
		{{"suggest_field", "title"}, {"suggest_text", "secret"}},
	} {
		if err := guardURL(rules, good); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range [][][2]string{
		{{"q", "secret:4111"}}, {{"q", "4111"}, {"df", "secret"}}, {{"df", "credit*"}, {"q", "4111"}}, {{"suggest_field", "secret"}, {"suggest_text", "4111"}}, {{"q", "4111"}, {"suggest_field", "secret"}},
	} {
		guardWantFault(t, fmt.Sprint(bad), guardURL(rules, bad))
	}
}

// TestGuardCanary puts a constant under a protected path in a random clause, spelling and nesting.
func TestGuardCanary(t *testing.T) {
	e, rules := guardRules(t)
	paths := []string{"credit_card_num", "credit_card_ccv", "payment.cards.pan", "secret"}
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.SampledFrom(paths).Draw(t, "path")
		name := path + rapid.SampledFrom([]string{"", ".keyword", ".a.b"}).Draw(t, "sub")
		if rapid.Bool().Draw(t, "escaped") {
			i := rapid.IntRange(0, len(path)-1).Draw(t, "at")
			name = name[:i] + fmt.Sprintf(`\u%04X`, name[i]) + name[i+1:]
		}
		clause := guardCanaryClause(t, name, path)
		for range rapid.IntRange(0, 4).Draw(t, "depth") {
			clause = fmt.Sprintf(rapid.SampledFrom([]string{
				`{"bool":{"must":[{"match_all":{}},%s],"boost":2}}`, `{"bool":{"must_not":%s}}`, `{"bool":{"should":[%s]}}`, `{"constant_score":{"boost":3,"filter":%s}}`,
				`{"nested":{"path":"payment","query":%s}}`, `{"function_score":{"query":%s,"boost":5}}`, `{"function_score":{"functions":[{"filter":%s,"weight":1}]}}`, `{"dis_max":{"queries":[%s]}}`,
				`{"boosting":{"positive":{"match_all":{}},"negative":%s,"negative_boost":0.5}}`, `{"script_score":{"query":%s,"script":"1"}}`, `{"unknown_wrapper":{"inner":%s}}`, `{"pinned":{"ids":[],"organic":%s}}`,
			}).Draw(t, "wrapper"), clause)
		}
		body := fmt.Sprintf(rapid.SampledFrom([]string{
			`{"query":%s}`, `{"size":0,"post_filter":%s}`, `{"aggs":{"x":{"filter":%s}}}`, `{"aggs":{"x":{"terms":{"field":"a"},"aggs":{"y":{"filters":{"filters":{"z":%s}}}}}}}`, `{"retriever":{"standard":{"query":%s}}}`,
			`{"rescore":{"query":{"rescore_query":%s}}}`, `{"highlight":{"fields":{"a":{"highlight_query":%s}}}}`, `{"knn":{"field":"v","filter":[%s]}}`, `{"sort":[{"a":{"nested":{"path":"p","filter":%s}}}]}`,
		}).Draw(t, "place"), clause)
		_, err := e.guardQuery(rules, []byte(body))
		var f *Fault
		if !errors.As(err, &f) || f.Type != "esproxy_protected_query" || strings.Contains(f.Reason, "c4n4ry") {
			t.Fatalf("%s: %v", body, err)
		}
	})
}

func guardCanaryClause(t *rapid.T, name, path string) string {
	keyed := []string{"term", "terms", "terms_set", "match", "match_phrase", "match_phrase_prefix", "match_bool_prefix", "range", "prefix", "wildcard", "regexp", "fuzzy", "intervals", "span_term", "plugin_clause"}
	value := rapid.SampledFrom([]string{`"c4n4ry"`, `["c4n4ry"]`, `{"value":"c4n4ry"}`, `{"boost":2,"query":"c4n4ry"}`, `{"gte":"c4n4ry"}`}).Draw(t, "value")
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return fmt.Sprintf(`{"%s":{"fields":["a","%s^2"],"query":"c4n4ry"}}`, rapid.SampledFrom([]string{"multi_match", "combined_fields", "query_string", "simple_query_string"}).Draw(t, "text"), name)
	case 1:
		return fmt.Sprintf(`{"query_string":{"query":"x AND %s:c4n4ry"}}`, name)
	case 2:
		return fmt.Sprintf(`{"script":{"script":{"source":"doc['%s'].value == params.v","params":{"v":"c4n4ry"}}}}`, name)
	case 3:
		doc := fmt.Sprintf(`{"%s":"c4n4ry"}`, name)
		if i := strings.IndexByte(path, '.'); i >= 0 && rapid.Bool().Draw(t, "nested") {
			doc = fmt.Sprintf(`{"%s":[{"%s":"c4n4ry"}]}`, path[:i], path[i+1:])
		}
		return fmt.Sprintf(`{"percolate":{"field":"q","document":%s}}`, doc)
	}
	return fmt.Sprintf(`{"%s":{"%s":%s}}`, rapid.SampledFrom(keyed).Draw(t, "clause"), name, value)
}

func FuzzGuardQuery(f *testing.F) {
	e, rules := guardRules(f)
	for _, bodies := range [][]string{guardPasses, guardRefuses} {
		for _, body := range bodies {
			f.Add([]byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_, err := e.guardQuery(rules, body)
		var fault *Fault
		if err != nil && !errors.As(err, &fault) {
			t.Fatalf("%T is no fault", err)
		}
		_ = guardURL(rules, [][2]string{{"q", string(body)}})
	})
}

func BenchmarkGuardQuery(b *testing.B) {
	e, rules := guardRules(b)
	body := []byte(guardPasses[5])
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.guardQuery(rules, body); err != nil {
			b.Fatal(err)
		}
	}
}
