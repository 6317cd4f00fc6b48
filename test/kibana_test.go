package test

import (
	"fmt"
	"strings"
	"testing"
)

// TestKibana replays what Kibana 8.19 sends. Nothing that it needs may be refused: every reply must be what the server answers when
// it is asked around the proxy, and hold no plaintext.
func TestKibana(t *testing.T) {
	for _, part := range []string{"start", "objects", "discover", "dashboards", "manage"} {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			s := start(t, config{})
			kibanaUsers(t, s, "$Puser")
			from := s.rec.count()
			list := readTraffic(t, "kibana_"+part+".txt")
			n := len(list) - replay(t, s, list)
			if n < len(list)/3 && realURL() != "" {
				t.Errorf("the server has only %d of %d requests", n, len(list))
			}
			if text := s.rec.leaks(from, "canary"); text != "" {
				t.Errorf("plaintext went upstream:\n%s", tail(text, 500))
			}
		})
	}
}

// kibanaUsers writes documents of a protected index as an application would.
func kibanaUsers(t *testing.T, s *stack, index string) {
	t.Helper()
	point := "" // which the embedded node does not have
	if realURL() != "" {
		point = `,"place":{"type":"geo_point"}`
	}
	s.must(s.do("PUT", "/"+index, `{"settings":{"number_of_shards":1,"number_of_replicas":0},"mappings":{"properties":{"@timestamp":{"type":"date"},"username":{"type":"keyword"},
		"city":{"type":"text","fields":{"keyword":{"type":"keyword","ignore_above":256}}},"amount":{"type":"double"}`+point+`}}}`), 200)
	var b strings.Builder
	for i := range 20 {
		fmt.Fprintf(&b, `{"index":{"_id":"u%d"}}`+"\n"+`{"@timestamp":"2025-01-%02dT00:00:00.000Z","username":"user-%d","city":%q,"amount":%d.5,"place":{"lat":52.5,"lon":13.%d},"credit_card_num":"canary-4111-1111-1111-%04d","credit_card_ccv":%d}`+"\n",
			i, 1+i/2, i%3, []string{"Berlin", "Rome", "Lima"}[i%3], i, i, i, 100+i)
	}
	if a := s.must(s.do("POST", "/"+index+"/_bulk?refresh=true", b.String()), 200); a.json("errors").Bool() {
		t.Fatalf("bulk: %s", tail(a.body, 1000))
	}
}

// TestDiscoverSeesCiphertext looks at what a Kibana without a grant shows of a protected field: it is in the field list, a filter
// "exists" finds nothing, and the view of a document has the sealed value.
func TestDiscoverSeesCiphertext(t *testing.T) {
	needReal(t)
	t.Parallel()
	s := start(t, config{})
	kibanaUsers(t, s, "$Puser")
	caps := s.do("POST", "/$Puser*/_field_caps?fields=*&ignore_unavailable=true&allow_no_indices=false&filters=-parent", `{"index_filter":{"range":{"@timestamp":{"gte":"2025-01-01"}}}}`)
	for field, protected := range map[string]bool{"credit_card_num": true, "credit_card_ccv": true, "cuenta_numero": true, `payment\.cards\.pan`: true, "username": false, `city\.keyword`: false} {
		kind := caps.json("fields." + field + ".keyword")
		if !kind.Exists() || kind.Get("searchable").Bool() == protected || kind.Get("aggregatable").Bool() == protected {
			t.Errorf("the field list has of %s: %q", field, kind.Raw)
		}
	}
	// Discover puts what this request leaves out under "empty fields".
	if a := s.do("GET", "/$Puser*/_field_caps?fields=*&include_empty_fields=false", ""); a.json("fields.credit_card_num").Exists() || !a.json("fields.city").Exists() {
		t.Errorf("fields that are not empty: %s", tail(a.body, 1000))
	}
	for query, want := range map[string]int64{`{"exists":{"field":"credit_card_num"}}`: 0, `{"bool":{"must_not":{"exists":{"field":"credit_card_num"}}}}`: 20, `{"exists":{"field":"city"}}`: 20} {
		if got := s.must(s.do("POST", "/$Puser*/_search", `{"size":0,"query":`+query+`}`), 200).json("hits.total.value").Int(); got != want {
			t.Errorf("%s finds %d, want %d", query, got, want)
		}
	}
	view := `{"query":{"ids":{"values":["u1"]}},"fields":[{"field":"*","include_unmapped":true}],"_source":true,"stored_fields":["*"],"version":true}`
	for _, path := range []string{"hits.hits.0.fields.credit_card_num.0", "hits.hits.0._source.credit_card_num"} {
		if got := s.must(s.do("POST", "/$Puser*/_search", view), 200).json(path).String(); !strings.HasPrefix(got, "esp1.") {
			t.Errorf("%s is %q, want a sealed value", path, got)
		}
		if got, want := s.must(s.as("full", "POST", "/$Puser*/_search", view), 200).json(path).String(), "canary-4111-1111-1111-0001"; got != want {
			t.Errorf("%s with a grant is %q, want %q", path, got, want)
		}
	}
	// "Filter for value" on a sealed value, as Discover offers it beside each one: refused, as the value could as well be one in clear.
	sealed := s.do("GET", "/$Puser/_doc/u1", "").json("_source.credit_card_num").String()
	a := s.must(s.do("POST", "/$Puser*/_search", `{"query":{"bool":{"filter":[{"match_phrase":{"credit_card_num":"`+sealed+`"}}]}}}`), 400)
	if reason := a.json("error.reason").String(); !strings.Contains(reason, "[credit_card_num]") || strings.Contains(reason, sealed) {
		t.Errorf("the refusal reads %q", reason)
	}
}

// TestDiscoverESQL replays Discover's ES|QL mode: columns before rows, then rows, asynchronously with a filter on the time.
func TestDiscoverESQL(t *testing.T) {
	server := needESQL(t)
	t.Parallel()
	s := start(t, config{server: server})
	kibanaUsers(t, s, "$Puser")
	replay(t, s, readTraffic(t, "kibana_esql.txt"))
	body := `{"query":"FROM $Puser* | WHERE amount == 1.5 | KEEP username, credit_card_num"}`
	if got := s.must(s.do("POST", "/_query", body), 200).json("values.0.1").String(); !strings.HasPrefix(got, "esp1.") {
		t.Errorf("without a grant the row reads %q", got)
	}
	if got, want := s.must(s.as("full", "POST", "/_query", body), 200).json("values.0.1").String(), "canary-4111-1111-1111-0001"; got != want {
		t.Errorf("with a grant the row reads %q, want %q", got, want)
	}
}
