package test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// openShapes are replies of each API in its own grammar. $H stands for hits, $S for the source of one document, $T for the tokens that
// stand where no document is, $R for rows.
var openShapes = makeOpenShapes()

func makeOpenShapes() map[string]string {
	const search = `{"took":1,"timed_out":false,"_shards":{"total":1,"successful":1,"skipped":0,"failed":1,"failures":[{"shard":0,"reason":{"type":"x","reason":"Preview of field's value: '$T9'"}}]},` +
		`"hits":{"total":{"value":3,"relation":"eq"},"max_score":1.0,"hits":[$H]},"aggregations":{"m":{"value":"$T8"},"t":{"buckets":[{"key":"$T8","doc_count":1}]},"s":{"value":{"hits":{"hits":[$H8]}}}}}`
	const msearch = `{"took":1,"responses":[` + search + `,{"error":{"type":"x","reason":"$T9"},"status":400}]}`
	const async = `{"id":"kept","is_partial":false,"is_running":false,"start_time_in_millis":1,"expiration_time_in_millis":2,"response":` + search + `}`
	const eql = `{"took":1,"timed_out":false,"hits":{"total":{"value":1,"relation":"eq"},"events":[$H],"sequences":[{"join_keys":["$T9"],"events":[{"_index":"$Pfree","_id":"1","_source":{"username":"Ana","credit_card_num":"$T8"}}]}]}}`
	return map[string]string{
		"search": search, "scroll": search, "fleet.search": search, "search_template": search, "knn_search": search, "search_application.search": search,
		"msearch": msearch, "msearch_template": msearch, "fleet.msearch": msearch, "async_search.submit": async, "async_search.get": async,
		"get": `{"_index":"$Puser","_id":"1","found":true,"_source":$S}`, "get_source": `$S`, "mget": `{"docs":[{"_index":"$Puser","_id":"1","found":true,"_source":$S},{"_index":"$Puser","_id":"9","error":{"type":"x","reason":"$T9"}}]}`,
		"explain":    `{"_index":"$Puser","_id":"1","matched":true,"explanation":{"value":1,"description":"$T9","details":[]},"get":{"found":true,"_source":$S}}`,
		"update":     `{"_index":"$Puser","_id":"1","_version":2,"result":"updated","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":1,"_primary_term":1,"get":{"found":true,"_source":$S}}`,
		"bulk":       `{"took":1,"errors":true,"items":[{"update":{"_index":"$Puser","_id":"1","status":200,"get":{"found":true,"_source":$S}}},{"index":{"_index":"$Puser","_id":"2","status":400,"error":{"type":"x","reason":"$T9"}}}]}`,
		"rank_eval":  `{"metric_score":0.5,"details":{"a":{"metric_score":0.5,"unrated_docs":[],"hits":[$HR],"metric_details":{"x":{"y":"$T9"}}}},"failures":{"b":{"error":{"reason":"$T9"}}}}`,
		"eql.search": eql, "eql.get": eql,
		"sql.query": `{"columns":[$COL],"rows":[$R]}`, "esql.query": `{"took":1,"columns":[$COL],"values":[$R]}`, "esql.async_query": `{"id":"x","is_running":false,"columns":[$COL],"values":[$R]}`,
	}
}

// openBodies are requests to which those replies belong, where readForms has none that says it.
var openBodies = map[string]string{
	"bulk":   `{"update":{"_index":"$Puser","_id":"kept","_source":true}}` + nl + `{"doc":{"city":"x"}}` + nl + `{"index":{"_index":"$Puser","_id":"2"}}` + nl + `{"username":"Ana"}` + nl,
	"update": `{"doc":{"city":"x"},"_source":true}`, "sql.query": `{"query":"SELECT username, credit_card_num, cuenta_numero, city FROM \"$Puser\""}`,
	"esql.query": `{"query":"FROM $Puser | KEEP username, credit_card_num, cuenta_numero, city"}`, "esql.async_query": `{"query":"FROM $Puser | KEEP username, credit_card_num, cuenta_numero, city"}`,
}

// TestWalkWithGrant gives replies of each API's grammar to a caller with a grant, by every row whose reply the table calls open: what lies
// in its place is shown, and what was copied or moved stays sealed: at another field, in an unprotected one, in a document that is
// shaped like a reply, as an object's key, in another person's document, in an unprotected index, as a runtime field, as an aggregation's value,
// in an error's text. Where a reply in another form than JSON is asked for, the request is refused.
func TestWalkWithGrant(t *testing.T) {
	t.Parallel()
	s := start(t, config{server: embedded(t), env: []string{"ESPROXY_LOG_LEVEL=info"}})
	var tokens []string
	for i := range 10 {
		path := fmt.Sprintf("/$Puser/_doc/d%d", i)
		s.must(s.do("PUT", path+"?refresh=true", fmt.Sprintf(`{"username":"Ana","credit_card_num":%q}`, value(canaryHead, int64(i)))), 201)
		tokens = append(tokens, s.must(s.direct("GET", path, ""), 200).json("_source.credit_card_num").String())
	}
	s.must(s.do("PUT", "/$Puser/_doc/kept?refresh=true", `{"username":"Ana"}`), 201)
	fill := func(text string) string {
		source := `{"username":"Ana","credit_card_num":"$T0","cuenta_numero":"$T1","city":"$T3","x":{"$T4":1},"hits":{"hits":[{"_index":"$Puser","_id":"1","_source":{"username":"Ana","credit_card_num":"$T2"}}]}}`
		hit := `{"_index":"$Puser","_id":"1","_score":1.0,"_source":` + source + `,"fields":{"r":["$T7"]},"sort":["$T7"]}`
		hits := hit + `,{"_index":"$Puser","_id":"2","_score":1.0,"_source":{"username":"Bob","credit_card_num":"$T5"}},{"_index":"$Pfree","_id":"3","_score":1.0,"_source":{"username":"Ana","credit_card_num":"$T6"}}`
		text = strings.NewReplacer("$HR", `{"hit":`+hit+`,"rating":null}`, "$H8", `{"_index":"$Puser","_id":"1","_source":{"username":"Ana","credit_card_num":"$T8"}}`, "$H", hits, "$S", source,
			"$COL", `{"name":"username","type":"keyword"},{"name":"credit_card_num","type":"keyword"},{"name":"cuenta_numero","type":"keyword"},{"name":"city","type":"keyword"}`,
			"$R", `["Ana","$T0","$T1","$T3"],["Bob","$T5",null,"$T4"]`).Replace(text)
		for i, token := range tokens {
			text = strings.ReplaceAll(text, fmt.Sprintf("$T%d", i), token)
		}
		return strings.ReplaceAll(text, "$P", s.prefix)
	}
	reply, at := "", ""
	s.rec.meet(func(w http.ResponseWriter, r *http.Request) bool {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		text := reply
		if r.Header.Get("X-Opaque-Id") != "open" || path != at {
			if text = storedText(r); text == "" {
				return false
			}
		}
		io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, text)
		return true
	})
	w := newWire(t, s)
	defer w.close()
	opened := 0
	for _, r := range tableRows(t) {
		if r.reply != "open" && r.reply != "items" {
			continue
		}
		api := strings.TrimPrefix(r.api, "compat7.")
		shape, ok := openShapes[strings.TrimSuffix(api, "_get")]
		if !ok {
			switch {
			case strings.HasPrefix(api, "esql."):
				shape = openShapes["esql.async_query"]
			case strings.HasPrefix(api, "sql."):
				shape = openShapes["sql.query"]
			default:
				t.Errorf("%s: no reply is known for %s", r, api)
				continue
			}
		}
		body := openBodies[api]
		if forms := readForms[api]; body == "" && len(forms) > 0 {
			body = strings.ReplaceAll(forms[0], "$I", "$Puser")
		}
		v := visit{row: r, path: r.path("$Puser"), body: body, header: []string{"X-Opaque-Id: open", "X-Esproxy-Authorization: Bearer " + s.token("full")}}
		if body != "" {
			v.header = append(v.header, typeOf(strings.HasSuffix(body, nl)))
		}
		reply, at = fill(shape), strings.ReplaceAll(v.path, "$P", s.prefix)
		a := w.send(&v)
		if a.err != nil || a.status != 200 || !gjson.Valid(a.body) {
			t.Errorf("%s: status %d, %v, %s", r, a.status, a.err, tail(a.body, 400))
			continue
		}
		indexless := strings.Contains(r.template, "async/{id}") // tables that do not tell what they were made of
		if shown := strings.Contains(a.body, value(canaryHead, 0)); !shown && !indexless {
			t.Errorf("%s: the value in its place is not shown: %s", r, tail(a.body, 1200))
		} else if shown {
			opened++
		}
		for i := 1; i < len(tokens); i++ {
			if strings.Contains(a.body, value(canaryHead, int64(i))) {
				t.Errorf("%s: the moved value %d is shown: %s", r, i, tail(a.body, 1500))
			}
			if strings.Contains(reply, tokens[i]) && !strings.Contains(a.body, tokens[i]) {
				t.Errorf("%s: the moved value %d is gone", r, i)
			}
		}
		for _, form := range []string{"application/yaml", "application/cbor", "application/smile", "application/vnd.elasticsearch+cbor; compatible-with=8", "text/csv", "?format=yaml", "?format=cbor", "?format=smile"} {
			other := v
			if query, ok := strings.CutPrefix(form, "?"); ok {
				other.path += "?" + query
			} else {
				other.header = append([]string{"Accept: " + form}, v.header...)
			}
			if a := w.send(&other); a.err != nil || a.status != 406 || inReply(a) != "" {
				t.Errorf("%s in %s: status %d, %v, %s", r, form, a.status, a.err, tail(a.body, 300))
			}
		}
	}
	t.Logf("%d rows open what lies in its place", opened)
}
