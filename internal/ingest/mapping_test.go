package ingest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/esproxy/esproxy/config"
	"github.com/esproxy/esproxy/internal/ingest"
)

func TestTheBuiltInMappingIsTheFile(t *testing.T) {
	file, err := os.ReadFile("../../config/ingest.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file, config.Ingest) {
		t.Error("the embedded mapping is not config/ingest.yaml")
	}
	m := ingest.DefaultMapping()
	if m.ID != "id" || m.Rename["user_name"] != "username" || m.Rename["codigo_zip"] != "code_zip" || len(m.Dates) != 2 || m.DateOutput.String() != "yyyy-MM-dd HH:mm:ss" {
		t.Errorf("mapping %+v", m)
	}
}

func parse(t *testing.T, text string) *ingest.Mapping {
	t.Helper()
	m, err := ingest.ParseMapping("m.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMappedRecords(t *testing.T) {
	const text = `
version: 1
id: id
rename: {user_name: username, "a.b": c}
dates:
  accept: [iso8601, dd/MM/yyyy, epoch_millis]
  zone: "+02:00"
  fields: {d: {}, e: {accept: [d.M.yyyy HH:mm]}}
constants: {provider: "a\"b", n: 1.50, yes: true, none: null, on: "off"}
`
	m := parse(t, text)
	const tail = `,"provider":"a\"b","n":1.50,"yes":true,"none":null,"on":"off"}`
	for _, c := range []struct{ in, id, out, reject string }{
		{`{"id":"1"}`, "1", `{"id":"1"` + tail, ""},
		{`{"user\u005fname":"x","ID":2,"id":12345678901234567890}`, "12345678901234567890", `{"username":"x","ID":2,"id":12345678901234567890` + tail, ""},
		{"{\n\"a.b\" : [1,\r\n 2 ] ,\t\"id\":\"\\u00e9/\\/\"}", "é//", `{"c":[1, 2 ],"id":"\u00e9/\/"` + tail, ""},
		{`{"id":"1","d":"11/01/2022"}`, "1", `{"id":"1","d":"2022-01-11 00:00:00"` + tail, ""},
		{`{"id":"1","d":"2021-08-23T10:35:24.999Z"}`, "1", `{"id":"1","d":"2021-08-23 12:35:24"` + tail, ""},
		{`{"id":"1","d":"2021-08-23T10:35:24"}`, "1", `{"id":"1","d":"2021-08-23 10:35:24"` + tail, ""},
		{`{"id":"1","d":"2021-12-31T23:30:00-05:00"}`, "1", `{"id":"1","d":"2022-01-01 06:30:00"` + tail, ""},
		{`{"id":"1","d":0}`, "1", `{"id":"1","d":"1970-01-01 02:00:00"` + tail, ""},
		{`{"id":"1","d":null,"e":"3.12.1999 07:08"}`, "1", `{"id":"1","d":null,"e":"1999-12-03 07:08:00"` + tail, ""},
		{`{"id":"1","d":"31/02/2022","x":1}`, "1", `{"id":"1","x":1` + tail, "ingest_date_not_understood"},
		{`{"id":"1","d":""}`, "1", `{"id":"1"` + tail, "ingest_date_not_understood"},
		{`{"id":"1","d":["11/01/2022"]}`, "1", `{"id":"1"` + tail, "ingest_date_not_understood"},
		{`{"id":"1","x":1,"\u0078":2}`, "1", "", "ingest_duplicate_member"},
		{`{"id":"1","provider":2}`, "1", "", "ingest_duplicate_member"},
		{`{"id":"1","user_name":1,"username":2,"d":"x"}`, "1", "", "ingest_duplicate_member"},
		{`{"id":""}`, "", `{"id":""` + tail, "ingest_no_usable_id"},
		{`{"id":null}`, "", `{"id":null` + tail, "ingest_no_usable_id"},
		{`{"id":1.0}`, "", `{"id":1.0` + tail, "ingest_no_usable_id"},
		{`{"id":1e3}`, "", `{"id":1e3` + tail, "ingest_no_usable_id"},
		{`{"id":-0}`, "", `{"id":-0` + tail, "ingest_no_usable_id"},
		{`{"id":"\ud800"}`, "", `{"id":"\ud800"` + tail, "ingest_no_usable_id"},
		{`{"id":"` + strings.Repeat("x", 513) + `"}`, "", `{"id":"` + strings.Repeat("x", 513) + `"` + tail, "ingest_no_usable_id"},
		{`[]`, "", "", "ingest_not_a_json_object"},
		{`{"id":"1",}`, "", "", "ingest_not_a_json_object"},
		{`{"id":"1","x":01}`, "", "", "ingest_not_a_json_object"},
		{`{"id":"1"`, "", "", "ingest_not_a_json_object"},
		{``, "", "", "ingest_not_a_json_object"},
	} {
		id, body, reject, _ := m.Apply([]byte(c.in))
		if id != c.id || string(body) != c.out || reject != c.reject {
			t.Errorf("%s:\n got %q %s %q\nwant %q %s %q", c.in, id, body, reject, c.id, c.out, c.reject)
		}
	}
}

func TestMappingMistakesAreAllListedWithTheirPlaces(t *testing.T) {
	const text = `version: 2
ids: id
rename:
  a: b
  a: c
  d: b
  e: [x]
  f: f
dates:
  output: iso8601
  zone: Mars/Olympus
  accept: [dd/MM/yyyy, YYYY, "yyyy-MM-dd'X'"]
  fields:
    x: {layout: iso8601}
    y: {accept: []}
constants:
  list: [1]
  hex: 0x1F
source:
  format: xml
  paging: {mode: pages, limit: -1, first_page: one, page_param: "", max_pages: 0}
`
	want := []string{
		`m.yaml:1:1: id is missing: name the member that identifies a record`,
		`m.yaml:1:10: version must be 1`,
		`m.yaml:2:1: unknown key "ids"; known here: version, id, rename, dates, constants, source`,
		`m.yaml:5:3: "a" stands twice, first on line 4`,
		`m.yaml:6:6: "a" and "d" are both renamed to "b"`,
		`m.yaml:7:6: the new name of e must be a string`,
		`m.yaml:8:6: "f" is renamed to itself`,
		`m.yaml:10:11: output must be a pattern like yyyy-MM-dd HH:mm:ss`,
		`m.yaml:11:9: unknown zone "Mars/Olympus": write UTC, an offset like +02:00 or a name like Europe/Madrid`,
		`m.yaml:12:24: date layout "YYYY": "YYYY" is not one of yyyy MM M dd d HH mm ss .SSS XXX, punctuation, 'T', 'Z'`,
		`m.yaml:12:30: date layout "yyyy-MM-dd'X'": "'" is not one of yyyy MM M dd d HH mm ss .SSS XXX, punctuation, 'T', 'Z'`,
		`m.yaml:14:9: unknown key "layout"; known here: accept`,
		`m.yaml:15:17: accept must be a list with at least one item`,
		`m.yaml:17:9: constant "list" must be a string, a number, true, false or null`,
		`m.yaml:18:8: constant "hex" has no JSON form as it is written: put it in quotes`,
		`m.yaml:20:11: format must be one of auto, array, ndjson`,
		`m.yaml:21:18: mode must be one of none, page, next, cursor`,
		`m.yaml:21:32: limit must be a whole number from 0 to 1000000`,
		`m.yaml:21:48: first_page must be a whole number from 0 to 1000000`,
		`m.yaml:21:65: page_param must not be empty: leave it out for the default`,
		`m.yaml:21:80: max_pages must be a whole number from 1 to 1000000000`,
	}
	m, err := ingest.ParseMapping("m.yaml", []byte(text))
	if m != nil || err == nil {
		t.Fatal("no error")
	}
	if d := cmp.Diff(want, strings.Split(err.Error(), "\n")); d != "" {
		t.Errorf("mistakes (-want +got):\n%s", d)
	}
}

func TestMappingFilesThatAreNoMapping(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "m.yaml:1:1: the file is empty",
		"# nothing\n":                   "m.yaml:1:1: the file is empty",
		"- a\n":                         "m.yaml:1:1: must be a list of key: value",
		"version: 1\nid: id\n---\nx: 1": "one document only",
		"version: 1\nid: [\n":           "m.yaml:3:",
		"version: 1\nid: \"\"\n":        "m.yaml:2:5: id must not be empty",
		"version: 1\nid: &x id\nrename: {a: *x}\n":      "(aliases are not supported)",
		"version: 1\nid: id\nrename: {<<: {a: b}}\n":    "keys must be plain strings",
		"version: 1\nid: id\ndates: {fields: {id: {}}}": "it cannot be a date too",
		"version: 1\nid: 7\n":                           "m.yaml:2:5: id must be a string",
	} {
		if _, err := ingest.ParseMapping("m.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
	if _, err := ingest.LoadMapping("no-such-file.yaml"); err == nil || !strings.Contains(err.Error(), "no-such-file.yaml") {
		t.Errorf("error %v, want the file named", err)
	}
}

func TestDateLayouts(t *testing.T) {
	for layout, ok := range map[string]bool{
		"yyyy-MM-dd HH:mm:ss": true, "dd/MM/yyyy": true, "yyyyMMdd": true, "d.M.yyyy": true, "yyyy-MM-dd'T'HH:mm:ss.SSSXXX": true, "iso8601": true,
		"": false, "yyyy": false, "yyyy-MM-dd dd": false, "yyyy-MM-ddSSS": false, "yyyy-MM-dd 7": false, "MMM d, yyyy": false, "2006-01-02": false, "yyyy-MM-dd MST": false,
	} {
		if _, err := ingest.ParseDateLayout(layout); (err == nil) != ok {
			t.Errorf("layout %q: error %v, want ok = %t", layout, err, ok)
		}
	}
}

// jsonText draws JSON texts with everything that a careless round trip changes.
func jsonText(depth int) *rapid.Generator[string] {
	scalars := rapid.OneOf(
		rapid.SampledFrom([]string{"null", "true", "false", "1.0E+5", "-0", "-0.0e-7", "12345678901234567890", "0.1000", "1E400", `"\u00e9\/\ud83d\ude00"`, `"\ud800"`, `"<&>"`, `""`, "\"\u2028\x7f\"", `"\"\\"`}),
		rapid.StringMatching(`"[a-zA-Zñ€ {}\[\],:]*"`), rapid.StringMatching(`-?[1-9][0-9]{0,30}(\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?`))
	if depth == 0 {
		return scalars
	}
	space := rapid.SampledFrom([]string{"", "", " ", "\t"})
	return rapid.OneOf(scalars, rapid.Custom(func(t *rapid.T) string {
		items := rapid.SliceOfN(jsonText(depth-1), 0, 4).Draw(t, "items")
		if rapid.Bool().Draw(t, "array") {
			return "[" + strings.Join(items, space.Draw(t, "s")+","+space.Draw(t, "s")) + "]"
		}
		for i := range items {
			items[i] = `"a"` + space.Draw(t, "s") + ":" + items[i] // duplicates below the top level are not this program's business
		}
		return "{" + strings.Join(items, ",") + "}"
	}))
}

func TestValuesThatAreNotMappedKeepTheirText(t *testing.T) {
	m := ingest.DefaultMapping()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z][a-z.]{3,6}[0-9]|\\u00e[0-9]|[A-Zñ]{1,3}`), 0, 8, rapid.ID[string]).Draw(t, "names")
		space := rapid.SampledFrom([]string{"", " ", "\n", "\r\n\t"})
		in, want := "{"+space.Draw(t, "s"), "{"
		for i, name := range append(names, "id") {
			value := jsonText(3).Draw(t, "value")
			if name == "id" {
				value = `"x"`
			}
			if i > 0 {
				in += space.Draw(t, "s") + "," + space.Draw(t, "s")
				want += ","
			}
			in += `"` + name + `"` + space.Draw(t, "s") + ":" + space.Draw(t, "s") + value
			want += `"` + name + `":` + value
		}
		in += space.Draw(t, "s") + "}"
		want += "}"
		id, body, reject, _ := m.Apply([]byte(in))
		if id != "x" || string(body) != want || reject != "" {
			t.Fatalf("%q\n got %q %q %q\nwant %q", in, id, body, reject, want)
		}
	})
}

func FuzzApply(f *testing.F) {
	f.Add([]byte(`{"id":"1","user_name":"a","fec_alta":"11/01/2022"}`))
	f.Add([]byte("{\"id\":1,\n\"a\":[1.0e5,{}]}"))
	f.Add([]byte(`{"id":"\ud800","id":2}`))
	f.Add([]byte("{\"\xff\":1,\"id\":\"\xff\"}"))
	m := ingest.DefaultMapping()
	f.Fuzz(func(t *testing.T, raw []byte) {
		var decoded map[string]json.RawMessage
		isObject := json.Unmarshal(raw, &decoded) == nil && decoded != nil
		id, body, reject, _ := m.Apply(raw)
		if isObject == (reject == "ingest_not_a_json_object") {
			t.Fatalf("%q: rejected as %q, encoding/json takes it for an object: %t", raw, reject, isObject)
		}
		if reject == "" {
			// Another reader finds the same members with the same values.
			var again map[string]json.RawMessage
			if err := json.Unmarshal(body, &again); err != nil || len(again) != len(decoded) {
				t.Fatalf("%q became %q: %v", raw, body, err)
			}
			for name, value := range decoded {
				switch name {
				case "user_name", "codigo_zip", "fec_alta", "fec_birthday":
					continue
				}
				if got := again[name]; string(got) != strings.NewReplacer("\n", "", "\r", "").Replace(string(value)) {
					t.Fatalf("%q became %q: member %q is %q", raw, body, name, got)
				}
			}
		}
		if reject == "" && id == "" {
			t.Fatal("no id and no reason")
		}
		if body == nil {
			return
		}
		// What can break the framing of a bulk request, or turn one record into two.
		if bytes.ContainsAny(body, "\n\r") || !json.Valid(body) || body[0] != '{' || !json.Valid(raw) {
			t.Fatalf("%q became %q", raw, body)
		}
	})
}
