package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/esproxy/esproxy/config"
	"github.com/esproxy/esproxy/internal/envelope"
	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// plainCluster knows every name as an index of its own.
type plainCluster struct{}

func (plainCluster) Resolve(_ context.Context, name string) (rewrite.Resolved, error) {
	return rewrite.Resolved{Names: []string{name}, Write: name}, nil
}
func (c plainCluster) Expand(ctx context.Context, name string) (rewrite.Resolved, error) {
	return c.Resolve(ctx, name)
}
func (plainCluster) Ready(context.Context, rewrite.Caller, string, []*policy.Rule) error { return nil }
func (plainCluster) Documents(_ context.Context, _ rewrite.Caller, refs []rewrite.Ref, _ []string) ([]rewrite.Stored, error) {
	return make([]rewrite.Stored, len(refs)), nil
}
func (plainCluster) Read(context.Context, rewrite.Caller, string, int64) (int, []byte, error) {
	return 404, nil, nil
}
func (plainCluster) Changed() {}

type freeBudget struct{}

func (freeBudget) Acquire(context.Context, int64) error { return nil }
func (freeBudget) TryAcquire(int64) bool                { return true }
func (freeBudget) Release(int64)                        {}

// bulkEngine gives an engine with the default policy and real keys, and a bulk of docs documents.
func bulkEngine(t testing.TB, suite envelope.Suite, docs int) (*rewrite.Engine, []byte) {
	text, err := envelope.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return keyedEngine(t, text, suite), bulkOf(docs)
}

func keyedEngine(t testing.TB, text string, suite envelope.Suite) *rewrite.Engine {
	pol, err := policy.Parse("fields.yaml", config.Fields)
	if err != nil {
		t.Fatal(err)
	}
	key, err := envelope.ParseKey(text, envelope.KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := envelope.NewKeyring(key, nil, envelope.Options{Suite: suite})
	if err != nil {
		t.Fatal(err)
	}
	return &rewrite.Engine{
		Policy: pol, Sealer: sealer{ring}, Opener: opener{ring}, Cluster: plainCluster{}, Budget: freeBudget{},
		Limits: rewrite.Limits{MaxDocument: 16 << 20, MaxHit: 16 << 20},
	}
}

// bulkOf gives a bulk of docs documents.
func bulkOf(docs int) []byte {
	var body bytes.Buffer
	for i := range docs {
		fmt.Fprintf(&body, `{"index":{"_id":"%d"}}`+"\n", i)
		fmt.Fprintf(&body, `{"fec_alta":"2021-08-23T10:35:24.123Z","username":"user%d","code_zip":"57353-3487","credit_card_num":"6767-2293-4172-5169","credit_card_ccv":"824","cuenta_numero":"58443297","direccion":"some street 12","geo_latitud":"-25.4601","geo_longitud":"-120.4236","color_favorito":"azul","foto_dni":"http://images.example/1.jpg","ip":"203.0.113.4","auto":"Tarsis","auto_modelo":"Z40","auto_tipo":"x","auto_color":"azul","cantidad_compras_realizadas":62301,"avatar":"http://images.example/2.jpg","fec_birthday":"1977-06-06T00:45:46.512Z","id":"1"}`+"\n", i)
	}
	return body.Bytes()
}

// carryBulk seals one bulk for index.
func carryBulk(t testing.TB, engine *rewrite.Engine, index string, body []byte) {
	plan, err := engine.Plan(t.Context(), &rewrite.Call{Method: "POST", Path: "/" + index + "/_bulk", HasBody: true, ContentType: []string{"application/x-ndjson"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Transform.Request(t.Context(), plan, bytes.NewReader(body), io.Discard); err != nil {
		t.Fatal(err)
	}
	plan.Transform.Close()
}

func benchBulk(b *testing.B, suite envelope.Suite, index string, docs int) {
	engine, body := bulkEngine(b, suite, docs)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		carryBulk(b, engine, index, body)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/(float64(b.N)*float64(docs)), "ns/doc")
}

// BenchmarkBulk seals 1,000 documents of three protected values, of which each gets a DEK of its own.
func BenchmarkBulk(b *testing.B) {
	b.Run("gcm", func(b *testing.B) { benchBulk(b, envelope.GCM, "user", 1000) })
	b.Run("eax", func(b *testing.B) { benchBulk(b, envelope.EAX, "user", 1000) })
	b.Run("unprotected", func(b *testing.B) { benchBulk(b, envelope.GCM, "free", 1000) })
}

// BenchmarkLargeBulk is one bulk of 12 MB, collected as the proxy is; with -cpu 1,2 it tells what a second processor brings.
func BenchmarkLargeBulk(b *testing.B) {
	setMemoryLimit(&settings{Memory: 64 << 20})
	benchBulk(b, envelope.GCM, "user", 20_000)
}

// BenchmarkReply opens a search reply of 10,000 hits with three sealed values each; with -cpu 1,2 it tells what a second
// processor brings.
func BenchmarkReply(b *testing.B) {
	for _, suite := range []envelope.Suite{envelope.GCM, envelope.EAX} {
		b.Run(suite.String(), func(b *testing.B) { benchReply(b, suite, 10_000) })
	}
}

func benchReply(b *testing.B, suite envelope.Suite, hits int) {
	engine, bulk := bulkEngine(b, suite, hits)
	reply := replyOf(b, engine, bulk, hits)
	b.SetBytes(int64(len(reply)))
	b.ReportAllocs()
	for b.Loop() {
		plan, err := engine.Plan(b.Context(), &rewrite.Call{Method: "GET", Path: "/user/_search", Viewer: plainViewer{}})
		if err != nil {
			b.Fatal(err)
		}
		open, _, err := plan.Transform.Reply(b.Context(), rewrite.ReplyHead{Status: 200, ContentType: "application/json"})
		if err != nil {
			b.Fatal(err)
		}
		if err := open(struct{ io.Reader }{bytes.NewReader(reply)}, io.Discard); err != nil {
			b.Fatal(err)
		}
		plan.Transform.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/(float64(b.N)*float64(hits)), "ns/hit")
}

// replyOf is the reply of a search that found the first documents of bulk, as they are stored.
func replyOf(t testing.TB, engine *rewrite.Engine, bulk []byte, hits int) []byte {
	rules, _ := engine.Policy.Match([]string{"user"})
	reply := []byte(`{"took":5,"hits":{"total":{"value":10000,"relation":"eq"},"max_score":1.0,"hits":[`)
	lines := bytes.SplitN(bulk, []byte("\n"), 2*hits+1)
	for i := range hits {
		if i > 0 {
			reply = append(reply, ',')
		}
		reply = fmt.Appendf(reply, `{"_index":"user","_id":"%d","_score":1.0,"_source":`, i)
		var err error
		if reply, err = engine.SealDocument(reply, lines[2*i+1], rules); err != nil {
			t.Fatal(err)
		}
		reply = append(reply, '}')
	}
	return append(reply, "]}}"...)
}

// plainViewer may see all.
type plainViewer struct{}

func (plainViewer) Reveal(*policy.Field) policy.Reveal { return policy.Plain }
func (plainViewer) Mask(dst []byte, _ *policy.Field, value []byte) []byte {
	return append(dst, value...)
}
