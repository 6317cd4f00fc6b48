package rewrite

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTopHitsOf(t *testing.T) {
	for _, c := range []struct {
		body string
		want [][]string
	}{
		{`{"query":{"aggs":{"x":{"top_hits":{}}}},"aggs":{"h":{"top_hits":{"size":1}}}}`, [][]string{{"h"}}},
		{`{"aggregations":{"t":{"aggs":{"f":{"filter":{},"aggs":{"h":{"top_hits":{}},"n":{"max":{}}}}},"meta":{"top_hits":1},"terms":{"field":"x"}}}}`, [][]string{{"t", "[]", "f", "h"}}},
		{`{"\u0061ggs":{"a":{"global":{},"aggs":{"h":{"top_hits":{}}}},"b":{"nested":{},"aggs":{"h":{"top_hits":{}}}}}}`, [][]string{{"a", "h"}, {"b", "h"}}},
		// What could be mistaken for a member of a body, and what no server takes.
		{`{"aggs":{"f":{"filter":{},"aggs":{"buckets":{"top_hits":{}}}}}}`, nil},
		{`{"aggs":{"value":{"terms":{},"aggs":{"h":{"top_hits":{}}}}}}`, nil},
		{`{"aggs":{"f":{"filter":{},"terms":{},"aggs":{"h":{"top_hits":{}}}}}}`, nil},
		{`{"aggs":{"s":{"scripted_metric":{},"aggs":{"h":{"top_hits":{}}}}}}`, nil},
		{`{"aggs":{"h":{"top_hits":{}}},"aggregations":{}}`, nil},
		{`{"aggs":{"h":{"top_hits":{}}}} x`, nil},
		{`{"aggs":{"h":{"top_hits":{}}}`, nil},
		{`{"aggs":[]}`, nil},
		{``, nil},
	} {
		if diff := cmp.Diff(c.want, topHitsOf([]byte(c.body))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.body, diff)
		}
	}
}
