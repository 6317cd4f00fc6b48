package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// Two readings of one document: the server's, as its index of an unprotected twin shows it (doc values, so what it truly
// read at a path), and the proxy's, as a grant gives it back. What both accept must be read alike, and nothing that the
// server reads at a protected path may rest in clear.
//
// ESPROXY_FUZZ_ROUNDS (default 12 of 150 documents each) and ESPROXY_FUZZ_SEED (default 1) set how long and from where.

const readingPolicy = `
version: 1
rules:
  - name: users
    indices: ["$Puser"]
    subject: username
    fields:
      card: {mode: encrypt}
      pay.iban: {mode: encrypt}
      items.no: {mode: encrypt}
`

// readingPaths are the protected paths.
var readingPaths = []string{"card", "pay.iban", "items.no"}

func envNumber(t *testing.T, name string, otherwise int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func startReading(t *testing.T) *stack {
	t.Helper()
	s := start(t, config{policy: readingPolicy})
	// Only what is named here is mapped: names that come of mutations must not fill the mapping.
	fields := func(leaf string) string {
		return `{"mappings":{"dynamic":false,"properties":{"username":{"type":"keyword"},"card":` + leaf + `,"pay":{"properties":{"iban":` + leaf + `}},"items":{"properties":{"no":` + leaf + `}}}}}`
	}
	s.must(s.do("PUT", "/$Popen", fields(`{"type":"keyword"}`)), 200)
	s.must(s.do("PUT", "/$Puser", fields(`{"type":"keyword","index":false,"doc_values":false,"ignore_above":2147483647}`)), 200)
	return s
}

// TestReadingOfDocuments compares the readings of mutated documents.
func TestReadingOfDocuments(t *testing.T) {
	needReal(t)
	seed, rounds := envNumber(t, "ESPROXY_FUZZ_SEED", 1), envNumber(t, "ESPROXY_FUZZ_ROUNDS", 12)
	s := startReading(t)
	both, opened := 0, 0
	for round := range rounds {
		m := readingMaker{rand.New(rand.NewPCG(uint64(seed), uint64(round))), 0}
		var docs []string
		var direct, proxied strings.Builder
		for i := range 150 {
			doc := strings.ReplaceAll(m.mutated(m.document()), "\n", " ")
			docs = append(docs, doc)
			id := fmt.Sprintf("%d-%d", round, i)
			fmt.Fprintf(&direct, `{"index":{"_index":"$Popen","_id":"%s"}}`+"\n%s\n", id, doc)
			fmt.Fprintf(&proxied, `{"index":{"_index":"$Puser","_id":"%s"}}`+"\n%s\n", id, doc)
		}
		s.must(s.direct("POST", "/_bulk?refresh=true", direct.String()), 200)
		s.must(s.do("POST", "/_bulk?refresh=true", proxied.String()), 200)
		theirs, ours := s.indexed(round, len(docs)), s.given(round, len(docs))
		for i, doc := range docs {
			stored, ok := ours[i]
			if !ok {
				continue
			}
			s.noneInClear(doc, stored.raw, theirs[i])
			if read, ok := theirs[i]; ok {
				both++
				opened += len(stored.opened["card"])
				for _, path := range readingPaths {
					if !slices.Equal(read[path], stored.opened[path]) {
						t.Errorf("seed %d, round %d: the server reads %q at %s, the proxy %q\n%q", seed, round, read[path], path, stored.opened[path], doc)
					}
				}
			}
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("%d documents were read by both, %d values opened", both, opened)
	if both < rounds*50 || opened < rounds*20 {
		t.Errorf("only %d documents were accepted by both, with %d values: the comparison says nothing", both, opened)
	}
}

// read is what was read at each protected path, sorted, each value once.
type read map[string][]string

// indexed gives what the server's index holds at each protected path of the round's documents in the unprotected twin.
func (s *stack) indexed(round, n int) map[int]read {
	s.t.Helper()
	a := s.must(s.direct("POST", "/$Popen/_search", fmt.Sprintf(`{"size":1000,"_source":false,"query":{"ids":{"values":[%s]}},"docvalue_fields":["card","pay.iban","items.no"]}`, idList(round, n))), 200)
	out := map[int]read{}
	for _, hit := range a.json("hits.hits").Array() {
		r := read{}
		for _, path := range readingPaths {
			for _, v := range hit.Get("fields." + gjsonName(path)).Array() {
				r[path] = append(r[path], v.String())
			}
			slices.Sort(r[path])
			r[path] = slices.Compact(r[path])
		}
		out[number(hit.Get("_id").String())] = r
	}
	return out
}

func idList(round, n int) string {
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf(`"%d-%d"`, round, i))
	}
	return strings.Join(ids, ",")
}

// number is the second part of an id.
func number(id string) int {
	_, n, _ := strings.Cut(id, "-")
	i, _ := strconv.Atoi(n)
	return i
}

// kept is a document as it rests and as a grant shows it.
type kept struct {
	raw    gjson.Result
	opened read
}

// given gives the protected documents of the round, raw and opened.
func (s *stack) given(round, n int) map[int]kept {
	s.t.Helper()
	search := fmt.Sprintf(`{"size":1000,"query":{"ids":{"values":[%s]}}}`, idList(round, n))
	raw := s.must(s.direct("POST", "/$Puser/_search", search), 200)
	open := s.must(s.as("full", "POST", "/$Puser/_search", search), 200)
	out := map[int]kept{}
	for _, hit := range raw.json("hits.hits").Array() {
		out[number(hit.Get("_id").String())] = kept{raw: hit.Get("_source")}
	}
	for _, hit := range open.json("hits.hits").Array() {
		i, r := number(hit.Get("_id").String()), read{}
		flatten("", hit.Get("_source"), func(path, text string) {
			if slices.Contains(readingPaths, path) {
				r[path] = append(r[path], text)
			}
		})
		for path := range r {
			slices.Sort(r[path])
			r[path] = slices.Compact(r[path])
		}
		k := out[i]
		k.opened = r
		out[i] = k
	}
	return out
}

// flatten calls f for each scalar but null, with the path that Elasticsearch would index it under.
func flatten(path string, v gjson.Result, f func(path, text string)) {
	switch {
	case v.IsObject():
		v.ForEach(func(name, value gjson.Result) bool {
			p := strings.TrimRight(name.String(), ".")
			if path != "" {
				p = path + "." + p
			}
			flatten(p, value, f)
			return true
		})
	case v.IsArray():
		v.ForEach(func(_, value gjson.Result) bool {
			flatten(path, value, f)
			return true
		})
	case v.Type == gjson.Number:
		f(path, v.Raw)
	case v.Type != gjson.Null:
		f(path, v.String())
	}
}

// noneInClear fails when a stored document holds in clear what the server reads at a protected path, or anything but
// a sealed value or null at one.
func (s *stack) noneInClear(doc string, stored gjson.Result, read read) {
	s.t.Helper()
	flatten("", stored, func(path, value string) {
		if slices.ContainsFunc(readingPaths, func(p string) bool { return path == p || strings.HasPrefix(path, p+".") }) && !strings.HasPrefix(value, "esp1.") {
			s.t.Errorf("plain at %s: %q of %q", path, value, doc)
		}
		for _, values := range read {
			if strings.HasPrefix(value, "secret-") && slices.Contains(values, value) {
				s.t.Errorf("in clear at %s: %q of %q", path, value, doc)
			}
		}
	})
}

// readingMaker makes documents and damages them.
type readingMaker struct {
	*rand.Rand
	n int
}

func (m *readingMaker) pick(list ...string) string { return list[m.IntN(len(list))] }

// secret is a value that stands nowhere else.
func (m *readingMaker) secret() string {
	m.n++
	plain := fmt.Sprintf("secret-%d-%d", m.n, m.IntN(1e6))
	switch m.IntN(9) {
	case 0:
		return fmt.Sprintf("%d%06d", m.n+1, m.IntN(1e6))
	case 1:
		return fmt.Sprintf("%d.%02d0", m.n, m.IntN(100))
	case 2:
		return m.pick("true", "false", "null", `""`)
	case 3:
		return `["` + plain + `",null,"` + plain + `b"]`
	case 4:
		return `"` + plain + m.pick(`\u00e9`, `\\`, `\"`, `\n`, "é", "漢", "😀", `\ud83d\ude00`, `\/`, "/*x*/", "  ") + `"`
	}
	return `"` + plain + `"`
}

// name writes a member's name in one of its spellings.
func (m *readingMaker) name(s string) string {
	if m.IntN(4) > 0 {
		return `"` + s + `"`
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		if m.IntN(3) == 0 {
			fmt.Fprintf(&b, m.pick(`\u%04x`, `\u%04X`), c)
		} else {
			b.WriteRune(c)
		}
	}
	return b.String() + `"`
}

func (m *readingMaker) space() string { return m.pick("", "", "", " ", "\t", "  ", "\r") }

// at writes the members that put value at a path: nested, dotted or both, through arrays.
func (m *readingMaker) at(parts []string, value string) string {
	if len(parts) == 1 {
		return m.space() + m.name(parts[0]) + m.space() + ":" + m.space() + value
	}
	if m.IntN(3) == 0 {
		return m.at(append([]string{parts[0] + "." + parts[1]}, parts[2:]...), value)
	}
	inner := "{" + m.at(parts[1:], value) + m.pick("", `,"x":1`, `,"y":{"z":[]}`) + "}"
	for m.IntN(3) == 0 {
		inner = "[" + m.pick("", "", `{"x":2},`, "null,") + inner + "]"
	}
	return m.space() + m.name(parts[0]) + ":" + inner
}

func (m *readingMaker) document() string {
	var members []string
	if m.IntN(10) > 0 {
		members = append(members, m.at([]string{"username"}, m.pick(`"ana"`, `"bob"`, "17", `"\u0061na"`)))
	}
	for _, path := range readingPaths {
		for n := m.IntN(8); n > 3; n -= 3 {
			members = append(members, m.at(strings.Split(path, "."), m.secret()))
		}
	}
	for n := m.IntN(4); n > 0; n-- {
		members = append(members, m.at([]string{m.pick("a", "b", "cards", "Card", "car", "pay2", "card_", "no", "iban", "e\u0301", "漢") + strconv.Itoa(m.IntN(30))}, m.pick("1", `"x"`, "[]", "{}", "null", `{"card":"plain"}`, `[{"no":1}]`, "1e400", `"\ud800"`)))
	}
	m.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return m.space() + "{" + strings.Join(members, ","+m.space()) + m.space() + "}" + m.space()
}

// mutated damages most documents somewhat, in ways that parsers are known to differ in, or at random.
func (m *readingMaker) mutated(doc string) string {
	for n := m.IntN(4) - 1; n > 0; n-- {
		at := m.IntN(len(doc) + 1)
		switch m.IntN(15) {
		case 0:
			doc = doc[:at] + m.pick("/**/", "//x\r", "#", "/*\"*/", "\x0b", "\x00", "\u00a0", "\ufeff") + doc[at:]
		case 1:
			doc = m.pick("\xef\xbb\xbf", " ", "\x00", "/**/", "[", "\xff\xfe") + doc
		case 2:
			doc += m.pick("{}", "x", "/**/", "]", "}", "\x00", "1", `{"card":"secret-after"}`)
		case 3:
			doc = strings.Replace(doc, m.pick(`card"`, `iban"`, `no"`, `pay"`, `items"`, `username"`), m.pick(`card."`, `iban."`, `no."`, `pay."`, `items.."`, `.username"`), 1)
		case 4:
			doc = strings.Replace(doc, m.pick("c", "i", "n", "p"), m.pick("\xc1\xa3", "\xc1\xa9", "\xc1\xae", "\xe0\x81\xa3", "\xc1\xb0"), 1)
		case 5:
			doc = strings.Replace(doc, m.pick(`"card"`, `"pay"`, `"items"`, `"no"`, `"iban"`), m.pick(`"Card"`, `"card "`, `"card\u0000"`, `"ca\u200brd"`, `"card\ud800"`, `'card'`, `card`, `"card.x"`, `"pay.iban.y"`, `"pay..iban"`, `""`, `"."`, `" "`, `"card\u002e"`), 1)
		case 6:
			if i := strings.IndexByte(doc, '{'); i >= 0 {
				doc = doc[:i+1] + m.pick(`"card":"secret-dup",`, `"pay":{"iban":"secret-dup2"},`, `"pay.iban":"secret-dot",`, `"items":[[{"no":"secret-deep"}]],`, `"card":{"a":"secret-obj"},`, `"_source":{"card":"secret-src"},`, `"username":"eve",`, `"x":{"card":"other"},`, `"pay":null,`) + doc[i+1:]
			}
		case 7:
			if at < len(doc) {
				doc = doc[:at] + doc[at+1:]
			}
		case 8:
			doc = doc[:at] + string(rune(m.IntN(0x250))) + doc[at:]
		case 9:
			doc = doc[:at] + m.pick("{", "}", "[", "]", ",", ":", `"`, `\`, ".", "0", "-", "e", "+") + doc[at:]
		case 10:
			doc = strings.Replace(doc, ":", m.pick(": ", ":\t", ":\r", ":-", ":+", ":0", ":."), 1)
		case 11:
			doc = strings.ReplaceAll(doc, "secret", m.pick("secret", `s\u0065cret`, "SECRET", "esp1.", `\u0000`))
		case 12:
			doc = doc[:at] + strings.Repeat(m.pick("[", `{"a":`), m.IntN(40)) + doc[at:]
		case 13:
			if utf8.ValidString(doc) && len(doc) < 300 {
				doc = strings.ReplaceAll(doc, `"card"`, `"card"`+m.pick("", " ", "\r"))
			}
		case 14:
			a, b := m.IntN(len(doc)+1), m.IntN(len(doc)+1)
			doc = doc[:min(a, b)] + doc[max(a, b):]
		}
		if doc == "" {
			doc = "{}"
		}
	}
	return doc
}
