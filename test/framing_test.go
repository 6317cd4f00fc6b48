package test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Bulk bodies are read in two ways too: by the server, of an unprotected twin of each body, and by the proxy. What both
// execute must be the same items in the same order, with the same documents, and none of them in clear.

// TestReadingOfBulks compares the readings of mutated bulk bodies. ESPROXY_FUZZ_ROUNDS times ten bodies are compared.
func TestReadingOfBulks(t *testing.T) {
	needReal(t)
	seed, rounds := envNumber(t, "ESPROXY_FUZZ_SEED", 1), envNumber(t, "ESPROXY_FUZZ_ROUNDS", 12)
	s := startReading(t)
	same, cut := 0, 0
	for round := range rounds * 10 {
		m := bulkMaker{readingMaker{rand.New(rand.NewPCG(uint64(seed), 1000+uint64(round))), 0}, round}
		body, docs := m.body()
		direct := s.must200(s.direct("POST", "/_bulk?refresh=true", twin.Replace(body)))
		proxied := s.must200(s.do("POST", "/_bulk?refresh=true", body))
		theirs, ours := s.indexed(round, docs), s.given(round, docs)
		for i, stored := range ours {
			s.noneInClear(body, stored.raw, theirs[i])
		}
		if proxied.status != 200 || direct.status != 200 {
			cut++
			continue
		}
		a, b := items(direct), items(proxied)
		if len(a) != len(b) {
			t.Errorf("seed %d, round %d: the server answers %d items, the proxy %d\n%q", seed, round, len(a), len(b), body)
			break
		}
		// After an item that the proxy refuses, or that the twin's mapping refuses (an object, which sealed is a string), later items for
		// the same document fare differently.
		apart := slices.ContainsFunc(b, func(it item) bool { return it.refused }) || slices.ContainsFunc(a, func(it item) bool { return it.status == 400 })
		for i := range a {
			x, y := a[i], b[i]
			if apart {
				x.status, y.status, y.refused = 0, 0, false
			}
			if x != y && !(y.id == "" && apart) {
				t.Errorf("seed %d, round %d: item %d is %+v to the server, %+v to the proxy\n%q", seed, round, i, a[i], b[i], body)
			}
			if a[i] == b[i] {
				same++
			}
		}
		for i, theirs := range theirs {
			k, ok := ours[i]
			if !ok || apart {
				continue
			}
			for _, path := range readingPaths {
				if !slices.EqualFunc(theirs[path], k.opened[path], sameText) {
					t.Errorf("seed %d, round %d, document %d: %q at %s to the server, %q to the proxy\n%q", seed, round, i, theirs[path], path, k.opened[path], body)
				}
			}
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("%d items were the same, %d bodies were refused as a whole", same, cut)
	if same < rounds*20 || cut > rounds*9 {
		t.Errorf("only %d items were executed by both: the comparison says nothing", same)
	}
}

// twin turns a body for the protected index into one for the unprotected.
var twin = strings.NewReplacer("$Puser", "$Popen", `$P\u0075ser`, `$P\u006fpen`)

// sameText compares values: an update makes the server write a plain number anew (2.730 becomes 2.73), and a sealed one not.
func sameText(a, b string) bool {
	x, errA := strconv.ParseFloat(a, 64)
	y, errB := strconv.ParseFloat(b, 64)
	return a == b || errA == nil && errB == nil && x == y
}

// must200 lets a refusal of the whole body pass too.
func (s *stack) must200(a answer) answer {
	s.t.Helper()
	if a.err != nil || a.status != 200 && a.status/100 != 4 {
		s.t.Fatalf("status %d, error %v, %s", a.status, a.err, tail(a.body, 500))
	}
	return a
}

// item is one entry of a bulk's reply.
type item struct {
	action, id string
	status     int64
	refused    bool // by the proxy
}

func items(a answer) (out []item) {
	for _, entry := range a.json("items").Array() {
		for action, it := range entry.Map() {
			out = append(out, item{action, it.Get("_id").String(), it.Get("status").Int(), strings.HasPrefix(it.Get("error.type").String(), "esproxy_")})
		}
	}
	return out
}

// bulkMaker makes bulk bodies. Documents have the ids "round-0" to "round-4".
type bulkMaker struct {
	readingMaker
	round int
}

func (m *bulkMaker) id() string { return fmt.Sprintf("%d-%d", m.round, m.IntN(5)) }

// body gives a body and how many ids it uses.
func (m *bulkMaker) body() (string, int) {
	var lines []string
	for n := 3 + m.IntN(6); n > 0; n-- {
		action := m.pick("index", "index", "create", "update", "delete")
		lines = append(lines, m.action(action))
		switch action {
		case "index", "create":
			lines = append(lines, oneLine(m.document()))
		case "update":
			doc := oneLine(m.document())
			lines = append(lines, m.pick(`{"doc":`+doc+`}`, `{"doc":`+doc+`,"doc_as_upsert":true}`, `{"doc":`+doc+`,"upsert":`+doc+`}`))
		}
		if m.IntN(8) == 0 {
			lines = append(lines, m.pick("", " ", "\r", "\t"))
		}
	}
	body := strings.Join(lines, m.pick("\n", "\n", "\n", "\r\n")) + "\n"
	if m.IntN(3) == 0 {
		body = m.damaged(body)
	}
	return body, 5
}

// oneLine keeps carriage returns within a document: they are white space to JSON and to the framing alike.
func oneLine(doc string) string { return strings.TrimSpace(strings.ReplaceAll(doc, "\n", " ")) }

// action writes an action line.
func (m *bulkMaker) action(action string) string {
	meta := []string{m.name("_index") + ":" + m.space() + m.pick(`"$Puser"`, `"$Puser"`, `"$P\u0075ser"`), m.name("_id") + ":" + `"` + m.id() + `"`}
	if m.IntN(10) == 0 {
		meta = append(meta, m.pick(`"routing":null`, `"require_alias":false`, `"retry_on_conflict":2`, `"version":null`, `"pipeline":"_none"`, `"_source":true`, `"dynamic_templates":{}`, `"list_executed_pipelines":false`))
	}
	m.Shuffle(len(meta), func(i, j int) { meta[i], meta[j] = meta[j], meta[i] })
	return m.space() + "{" + m.name(action) + m.space() + ":" + "{" + strings.Join(meta, ",") + "}" + m.space() + "}"
}

// damaged changes the framing.
func (m *bulkMaker) damaged(body string) string {
	lines := strings.SplitAfter(body, "\n")
	at := m.IntN(len(lines))
	switch m.IntN(12) {
	case 0:
		lines = slices.Delete(lines, at, at+1)
	case 1:
		lines = slices.Insert(lines, at, m.pick("\n", "\r\n", "  \n", "{}\n", "x\n", "/**/\n", "\ufeff\n", `{"index":{}}`+"\n", `{"delete":{"_index":"$Puser","_id":"`+m.id()+`"}}`+"\n"))
	case 2:
		return strings.TrimSuffix(body, "\n")
	case 3:
		lines[at] = m.mutated(lines[at])
	case 4:
		lines[at] = strings.Replace(lines[at], "}\n", m.pick(`,"x":1}`, " }", "}}", "", `}{"index":{}}`, "} x", "}/**/")+"\n", 1)
	case 5:
		lines[at] = strings.Replace(lines[at], `"index"`, m.pick(`"Index"`, `"index "`, `"\u0069ndex"`, `"index","op_type":"create"`, `"create"`, `"upsert"`), 1)
	case 6:
		lines[at] = strings.Replace(lines[at], `:{`, m.pick(`:[{`, `:null,"y":{`, `:{"_type":"x",`, `:{"op_type":"create",`, `:{"_index":"$Popen",`), 1)
	case 7:
		return strings.ReplaceAll(body, "\n", m.pick("\r", "\n\n", "\r\r\n", "\u2028"))
	case 8:
		return m.mutated(body)
	case 9:
		lines[at] = "\xef\xbb\xbf" + lines[at]
	case 10:
		lines[at] = strings.Replace(lines[at], "\n", "\x00\n", 1)
	case 11:
		i, j := m.IntN(len(lines)), m.IntN(len(lines))
		lines[i], lines[j] = lines[j], lines[i]
	}
	return strings.Join(lines, "")
}
