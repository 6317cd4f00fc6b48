package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Mapping says how a provider's record becomes a document. It is plain data,
// usually parsed from a file by [ParseMapping], and must not be changed once in use;
// then it is safe for concurrent use.
//
// Names are member names at the top level of a record, compared after
// unescaping, bytewise.
type Mapping struct {
	// ID is the provider's name of the member whose value becomes _id.
	ID string
	// Rename maps the provider's names to stored names.
	Rename map[string]string
	// Dates maps the provider's names of date members to the layouts they may have.
	Dates map[string][]DateLayout
	// DateOutput is the layout of stored dates.
	DateOutput DateLayout
	// Zone is the zone of stored dates and of dates that bring none; nil is UTC.
	Zone *time.Location
	// Constants are added to every document, in this order.
	Constants []Constant
	// Format is how the source's body is read.
	Format Format
	// Paging is how an HTTP source is split into requests.
	Paging Paging

	// fingerprint identifies the text that the mapping was parsed from; a
	// checkpoint made under another text is not resumed.
	fingerprint string
}

// Constant is a member that every document gets.
type Constant struct {
	Name  string
	Value json.RawMessage // one JSON scalar
}

// maxID is Elasticsearch's limit for _id in bytes (IndexRequest.MAX_DOCUMENT_ID_LENGTH).
const maxID = 512

// Error types of records that never reach the cluster. They stand in dead letters in the place
// of Elasticsearch's error types.
const (
	rejectNotJSON   = "ingest_not_a_json_object"
	rejectNoID      = "ingest_no_usable_id"
	rejectDuplicate = "ingest_duplicate_member"
	rejectDate      = "ingest_date_not_understood"
	rejectTooLarge  = "ingest_record_too_large"
)

// document is a mapped record.
type document struct {
	id   string // "" when the record has no usable id
	body []byte // one JSON object on one line; nil when none could be made
	// reject is one of the reject… types, or "" for a document that can be sent.
	// Of a rejected record, body holds what can be sealed for the dead letter: it lacks
	// dates that were not understood.
	reject string
	// fields are the stored names of the members that caused the rejection.
	fields []string
}

// apply maps one record. raw is the JSON text of one value; it is not kept.
// Members that the mapping does not name keep name, order and JSON text (line breaks
// between tokens are taken out, because a bulk request is framed by lines).
func (m *Mapping) apply(raw []byte) document {
	var d document
	out := bytes.NewBuffer(make([]byte, 0, len(raw)+64))
	out.WriteByte('{')
	seen := make(map[string]bool, 32)
	add := func(name string, nameText, value []byte) {
		if seen[name] {
			d.fail(rejectDuplicate, name)
			return
		}
		seen[name] = true
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		out.Write(nameText)
		out.WriteByte(':')
		writeLine(out, value)
	}
	ok := members(raw, func(name string, nameText, value []byte) {
		if name == m.ID {
			d.id = idOf(value)
		}
		stored := name
		if to, ok := m.Rename[name]; ok {
			stored, nameText = to, quote(to)
		}
		if layouts, ok := m.Dates[name]; ok {
			if value, ok = m.date(value, layouts); !ok {
				d.fail(rejectDate, stored)
				return
			}
		}
		add(stored, nameText, value)
	})
	if !ok {
		return document{reject: rejectNotJSON}
	}
	for _, c := range m.Constants {
		add(c.Name, quote(c.Name), c.Value)
	}
	out.WriteByte('}')
	d.body = out.Bytes()
	if d.id == "" {
		d.fail(rejectNoID, m.ID)
	}
	if d.reject == rejectDuplicate {
		d.body = nil // two values for one name: there is no document that says both
	}
	return d
}

// fail records the first reason of a rejection and all fields that share it. A duplicate
// member outweighs the other reasons, because no body can be made.
func (d *document) fail(reason, field string) {
	if d.reject == "" || reason == rejectDuplicate && d.reject != reason {
		d.reject, d.fields = reason, nil
	}
	if d.reject == reason {
		d.fields = append(d.fields, field)
	}
}

// date returns the stored form of a date's JSON text. null stays null.
func (m *Mapping) date(value []byte, layouts []DateLayout) ([]byte, bool) {
	if string(value) == "null" {
		return value, true
	}
	text := string(value)
	isString := value[0] == '"'
	if isString {
		if json.Unmarshal(value, &text) != nil {
			return nil, false
		}
	}
	zone := m.Zone
	if zone == nil {
		zone = time.UTC
	}
	for _, l := range layouts {
		if t, ok := l.parse(text, isString, zone); ok {
			return quote(m.DateOutput.format(t.In(zone))), true
		}
	}
	return nil, false
}

// idOf returns the document id that a member's JSON text stands for, or "" when it cannot be one:
// a string of 1 to 512 bytes, or an integer as it is written.
func idOf(value []byte) string {
	switch c := value[0]; {
	case c == '"':
		var s string
		// Unmarshal turns broken UTF-8 and lone surrogates into U+FFFD: two ids could become one.
		if json.Unmarshal(value, &s) != nil || len(s) > maxID || strings.ContainsRune(s, utf8.RuneError) {
			return ""
		}
		return s
	case c == '-' || c >= '0' && c <= '9':
		if len(value) > maxID || bytes.ContainsAny(value, ".eE") || string(value) == "-0" {
			return ""
		}
		return string(value)
	}
	return ""
}

// writeLine appends a JSON text without line breaks. Inside JSON strings they cannot occur, so
// outside them they are insignificant.
func writeLine(out *bytes.Buffer, value []byte) {
	if bytes.IndexByte(value, '\n') < 0 && bytes.IndexByte(value, '\r') < 0 {
		out.Write(value)
		return
	}
	for _, b := range value {
		if b != '\n' && b != '\r' {
			out.WriteByte(b)
		}
	}
}

// quote returns s as a JSON string.
func quote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("ingest: a string that has no JSON form: %T", err)) // encoding/json has a form for every string
	}
	return b
}
