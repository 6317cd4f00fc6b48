package test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// docMaker makes documents of all kinds of JSON text. Protected values hold the canary wherever they are strings.
type docMaker struct{ *rand.Rand }

const roundCanary = "c4n4ry"

func (m docMaker) pick(list ...string) string { return list[m.IntN(len(list))] }

// text is a string as JSON text.
func (m docMaker) text(start string) string {
	var b strings.Builder
	b.WriteString(`"` + start)
	for range m.IntN(12) {
		b.WriteString(m.pick(
			"x", "lorem ", "é", "日本", "😀", `\n`, `\t\r\b\f`, `\"`, `\\`, `\/`, "/", `\u0000`, `\u001F`, `\u00e9`, `\u00E9`, `\ud83d\ude00`, `\ud800`, `\uDC00`,
			`\udc00\ud800`, "\x7f", "\u2028", "\ufffd", `\ufffd`, "{", "]", ",", ":", " esp1.", `\u0022`, `\u005c`, "<&>", "\U0010ffff",
		))
	}
	b.WriteByte('"')
	return b.String()
}

func (m docMaker) number() string {
	return m.pick("0", "-0", "7", "12345678901234567890", "-99999999999999999999", "1.0E+5", "1e5", "1E-7", "0.1000", "-0.0", "123.4567890123456789012345678901234567890",
		"9007199254740993", strconv.Itoa(m.IntN(1_000_000)), "1e400", "2.50")
}

func (m docMaker) space() string { return m.pick("", "", "", "", " ", "  ", "\t") }

// value is any JSON value; strings in it begin with start.
func (m docMaker) value(depth int, start string) string {
	kinds := 8
	if depth <= 0 {
		kinds = 5
	}
	switch m.IntN(kinds) {
	case 0:
		return m.number()
	case 1:
		return m.pick("true", "false", "null", `""`, "[]", "{}", "[[]]", "[ ]", "{ }")
	case 5:
		var list []string
		for range m.IntN(4) {
			list = append(list, m.space()+m.value(depth-1, start)+m.space())
		}
		return "[" + strings.Join(list, ",") + "]"
	case 6:
		return "[[" + m.value(depth-1, start) + "]," + m.value(depth-1, start) + "]"
	case 7:
		return m.object(depth-1, start, m.IntN(4))
	}
	return m.text(start)
}

// name is a member's name, as JSON text, that differs from all with another n.
func (m docMaker) name(n int) string {
	k := strconv.Itoa(n)
	return `"` + m.pick("k", "Credit_card_num", "a b", "ñ", `\u006b`, "k.sub", "username_", `q\"`, "日", `x\/`, "credit_card", "credit_card_num_") + k + `"`
}

func (m docMaker) object(depth int, start string, members int) string {
	var list []string
	for i := range members {
		list = append(list, m.space()+m.name(i)+m.space()+":"+m.space()+m.value(depth, start))
	}
	return "{" + strings.Join(list, ",") + "}"
}

// document is a document of the rule users, on one line.
func (m docMaker) document(n int) string {
	pair := func(name, value string) string {
		return m.space() + name + m.space() + ":" + m.space() + value + m.space()
	}
	list := []string{pair(m.pick(`"username"`, `"username"`, `"\u0075sername"`), m.pick(
		`"user-`+strconv.Itoa(n%97)+`"`, strconv.Itoa(n%97), `"José \ud83d\ude00 `+strconv.Itoa(n%97)+`"`, `"\u0041\/\"`+strconv.Itoa(n%97)+`"`, `"😀"`))}
	protected := func() string {
		if m.IntN(400) == 0 {
			return `"` + strings.Repeat(roundCanary, 20_000) + `"`
		}
		if m.IntN(3) == 0 {
			return m.value(3, roundCanary)
		}
		return m.text(roundCanary)
	}
	if m.IntN(4) > 0 {
		list = append(list, pair(m.pick(`"credit_card_num"`, `"credit\u005fcard_num"`, `"\u0063redit_card_\u006Eum"`), protected()))
	}
	if m.IntN(2) > 0 {
		list = append(list, pair(`"credit_card_ccv"`, protected()))
	}
	if m.IntN(3) > 0 {
		list = append(list, pair(`"cuenta_numero"`, protected()))
	}
	pan := func() string { return m.pick(`"pan"`, `"p\u0061n"`) + ":" + m.space() + protected() }
	switch m.IntN(9) {
	case 0:
		list = append(list, pair(`"payment.cards.pan"`, protected()))
	case 1:
		list = append(list, pair(`"payment"`, "{"+m.pick(`"cards.pan"`, `"cards\u002epan"`)+":"+protected()+"}"))
	case 2:
		list = append(list, pair(`"payment.cards"`, "[{"+pan()+"},{},{"+pan()+`,"brand":`+m.text("")+"}]"))
	case 3:
		list = append(list, pair(`"payment"`, `{"cards":{`+pan()+`}}`), pair(`"payment.cards.pan"`, protected()))
	case 4:
		list = append(list, pair(`"payment"`, `[[{"cards":[[{`+pan()+`}],{`+pan()+`}]}],{"cards":[]}]`))
	case 5:
		list = append(list, pair(`"payment"`, "null"))
	}
	for i := range m.IntN(6) {
		list = append(list, pair(m.name(1000+i), m.value(4, "")))
	}
	m.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return "{" + strings.Join(list, ",") + "}"
}

// TestRoundTrip writes 10,000 documents through the proxy, in bulks of many sizes, packed and not, and alone, and
// reads them with a grant in all ways that give a whole document. Each must come back byte for byte.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	const count, alone = 10_000, 200
	s := start(t, config{})
	s.must(s.do("PUT", "/$Puser-round", `{"mappings":{"dynamic":false,"properties":{"ordinal":{"type":"long"}}}}`), 200)
	m := docMaker{rand.New(rand.NewPCG(8, 19))}
	want := make([]string, count)
	for i := range want {
		want[i] = m.document(i)
	}
	for _, i := range []int{alone + 7, count / 2, count - 3} {
		want[i] = `{"credit_card_num":"` + roundCanary + strings.Repeat("m", 1<<20) + `","big":"` + strings.Repeat("é", 1<<19) + `","username":"Ana","credit_card_ccv":""}`
	}
	for i := range alone { // newlines are for single documents alone
		want[i] = strings.Replace(want[i], "{", "{\n  \r\n", 1)
		a := s.send(request{method: m.pick("PUT", "POST"), path: "/$Puser-round/" + m.pick("_doc", "_create") + "/" + strconv.Itoa(i), body: strings.NewReader(want[i])})
		if a.status != 201 {
			t.Fatalf("status %d: %s\n%s", a.status, a.body, want[i])
		}
	}
	for i := alone; i < count; {
		n := min([]int{1, 3, 50, 400, 1000, 2500}[m.IntN(6)], count-i)
		var b strings.Builder
		for j := i; j < i+n; j++ {
			fmt.Fprintf(&b, `{%q:{"_id":"%d"}}`+m.pick("\n", "\n", "\r\n"), m.pick("index", "create"), j)
			b.WriteString(want[j] + m.pick("\n", "\n", "\r\n", "\n\n"))
		}
		r := request{method: "POST", path: "/$Puser-round/_bulk", header: http.Header{"Content-Type": {"application/x-ndjson"}}, body: strings.NewReader(b.String())}
		if m.IntN(2) == 0 {
			r.header["Content-Encoding"] = []string{"gzip"}
			r.body = strings.NewReader(gz(t, b.String()))
		}
		a := s.must(s.send(r), 200)
		if a.json("errors").Raw != "false" || int(a.json("items.#").Int()) != n {
			for k, item := range a.json("items").Array() {
				if item.Get("*.error").Exists() {
					t.Fatalf("%s\n%s", item.Raw, tail(want[i+k], 2000))
				}
			}
			t.Fatalf("%d items of %d", a.json("items.#").Int(), n)
		}
		i += n
	}
	s.must(s.direct("POST", "/$Puser-round/_refresh", ""), 200)

	mapping := s.must(s.direct("GET", "/$Puser-round/_mapping", ""), 200).json(gjsonName(s.prefix + "user-round"))
	for _, path := range []string{"credit_card_num", "credit_card_ccv", "cuenta_numero", "payment.properties.cards.properties.pan"} {
		if f := mapping.Get("mappings.properties." + path); f.Get("type").String() != "keyword" || f.Get("index").Raw != "false" || f.Get("doc_values").Raw != "false" {
			t.Errorf("%s is mapped as %s in %s", path, f.Raw, mapping.Raw)
		}
	}

	faults := 0
	same := func(how string, hit gjson.Result) {
		i, err := strconv.Atoi(hit.Get("_id").String())
		if err != nil || i < 0 || i >= count {
			t.Fatalf("%s: id %s", how, hit.Get("_id").Raw)
		}
		if got := hit.Get("_source").Raw; got != want[i] {
			if faults++; faults <= 5 {
				t.Errorf("%s: document %d\n got %s\nwant %s", how, i, tail(got, 1500), tail(want[i], 1500))
			}
		}
	}
	seen := map[string]bool{}
	a := s.must(s.as("full", "POST", "/$Puser-round/_search?scroll=1m", `{"size":700,"sort":["_doc"]}`), 200)
	for {
		hits := a.json("hits.hits").Array()
		for _, hit := range hits {
			seen[hit.Get("_id").String()] = true
			same("scroll", hit)
		}
		id := a.json("_scroll_id").String()
		if len(hits) == 0 {
			s.do("DELETE", "/_search/scroll", fmt.Sprintf(`{"scroll_id":%q}`, id))
			break
		}
		a = s.must(s.as("full", "POST", "/_search/scroll", fmt.Sprintf(`{"scroll":"1m","scroll_id":%q}`, id)), 200)
	}
	if len(seen) != count {
		t.Errorf("%d documents of %d", len(seen), count)
	}
	for range 30 {
		var ids []string
		for range 40 {
			ids = append(ids, strconv.Quote(strconv.Itoa(m.IntN(count))))
		}
		list := strings.Join(ids, ",")
		for _, doc := range s.must(s.as("full", "POST", "/$Puser-round/_mget", `{"ids":[`+list+`]}`), 200).json("docs").Array() {
			same("_mget", doc)
		}
		for _, hit := range s.must(s.as("full", "POST", "/$Puser-round/_search", `{"size":40,"query":{"ids":{"values":[`+list+`]}}}`), 200).json("hits.hits").Array() {
			same("_search", hit)
		}
	}
	for range alone {
		i := m.IntN(count)
		same("_doc", gjson.Parse(s.must(s.as("full", "GET", "/$Puser-round/_doc/"+strconv.Itoa(i), ""), 200).body))
		if got := s.must(s.as("full", "GET", "/$Puser-round/_source/"+strconv.Itoa(i), ""), 200).body; got != want[i] {
			t.Errorf("_source: document %d\n got %s\nwant %s", i, tail(got, 1500), tail(want[i], 1500))
		}
	}
	if faults > 5 {
		t.Errorf("%d documents differ in all", faults)
	}
	if text := s.documents(""); strings.Contains(text, roundCanary) || !strings.Contains(text, `"esp1.`) {
		t.Error("a protected value is stored in clear")
	}
	for _, r := range s.rec.since(0) {
		if strings.Contains(string(r.body), roundCanary) {
			t.Fatalf("a protected value went upstream: %s", tail(r.String(), 1000))
		}
	}
}

// gjsonName escapes a name for a gjson path.
func gjsonName(name string) string { return strings.ReplaceAll(name, ".", `\.`) }
