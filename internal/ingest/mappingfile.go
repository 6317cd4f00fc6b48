package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/esproxy/esproxy/config"
)

// LoadMapping reads and parses a mapping file; see [ParseMapping].
func LoadMapping(path string) (*Mapping, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the mapping: %w", err)
	}
	return ParseMapping(path, data)
}

// DefaultMapping returns the mapping of config/ingest.yaml, which is built into the binary.
func DefaultMapping() *Mapping {
	m, err := ParseMapping("config/ingest.yaml", config.Ingest)
	if err != nil {
		panic("ingest: the built-in mapping is broken: " + err.Error()) // a test parses it
	}
	return m
}

// ParseMapping parses a mapping, whose format config/ingest.yaml explains. name is
// used in errors only. The error is [MappingErrors] and lists every mistake.
func ParseMapping(name string, data []byte) (*Mapping, error) {
	w := &walker{file: name}
	sum := sha256.Sum256(data)
	m := &Mapping{fingerprint: hex.EncodeToString(sum[:8])}
	w.mapping(m, data)
	if len(w.errs) > 0 {
		w.errs.sort()
		return nil, w.errs
	}
	return m, nil
}

func (w *walker) mapping(m *Mapping, data []byte) {
	root, ok := w.document(data)
	if !ok {
		return
	}
	top, ok := w.object(root, "version", "id", "rename", "dates", "constants", "source")
	if !ok {
		return
	}
	if v, ok := top["version"]; !ok {
		w.fail(root, "version is missing: write version: 1")
	} else if v.Tag != "!!int" || v.Value != "1" {
		w.fail(v, "version must be 1")
	}
	if v, ok := top["id"]; !ok {
		w.fail(root, "id is missing: name the member that identifies a record")
	} else if m.ID, ok = w.str(v, "id"); ok && m.ID == "" {
		w.fail(v, "id must not be empty")
	}
	w.rename(m, top["rename"])
	w.dates(m, top["dates"])
	w.constants(m, top["constants"])
	w.source(m, top["source"])
}

func (w *walker) rename(m *Mapping, n *node) {
	m.Rename = map[string]string{}
	targets := map[string]string{}
	for _, e := range w.entries(n) {
		to, ok := w.str(e.value, "the new name of "+e.key.Value)
		if !ok {
			continue
		}
		switch other, taken := targets[to]; {
		case to == "":
			w.fail(e.value, "the new name of %q must not be empty", e.key.Value)
		case taken:
			w.fail(e.value, "%q and %q are both renamed to %q", other, e.key.Value, to)
		case to == e.key.Value:
			w.fail(e.value, "%q is renamed to itself", to)
		}
		targets[to] = e.key.Value
		m.Rename[e.key.Value] = to
	}
}

var offset = regexp.MustCompile(`^[+-](0\d|1[0-4]):[0-5]\d$`)

func (w *walker) dates(m *Mapping, n *node) {
	m.Zone = time.UTC
	m.DateOutput, _ = ParseDateLayout("yyyy-MM-dd HH:mm:ss")
	iso, _ := ParseDateLayout("iso8601")
	accept := []DateLayout{iso}
	m.Dates = map[string][]DateLayout{}
	o, ok := w.object(n, "output", "zone", "accept", "fields")
	if !ok {
		return
	}
	if v, ok := o["output"]; ok {
		l, ok := w.layout(v)
		if ok && l.kind != layoutPattern {
			w.fail(v, "output must be a pattern like yyyy-MM-dd HH:mm:ss")
		}
		m.DateOutput = l
	}
	if v, ok := o["zone"]; ok {
		if name, ok := w.str(v, "zone"); ok {
			m.Zone = w.zone(v, name)
		}
	}
	if v, ok := o["accept"]; ok {
		accept = w.layouts(v)
	}
	for _, e := range w.entries(o["fields"]) {
		own := accept
		f, ok := w.object(e.value, "accept")
		if v, has := f["accept"]; ok && has {
			own = w.layouts(v)
		}
		if e.key.Value == m.ID {
			w.fail(e.key, "%q is the id: it cannot be a date too", m.ID)
		}
		m.Dates[e.key.Value] = own
	}
}

func (w *walker) zone(n *node, name string) *time.Location {
	if offset.MatchString(name) {
		t, _ := time.Parse("-07:00", name)
		_, seconds := t.Zone()
		return time.FixedZone(name, seconds)
	}
	loc, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		w.fail(n, "unknown zone %q: write UTC, an offset like +02:00 or a name like Europe/Madrid", name)
		return time.UTC
	}
	return loc
}

func (w *walker) layout(n *node) (DateLayout, bool) {
	s, ok := w.str(n, "a date layout")
	if !ok {
		return DateLayout{}, false
	}
	l, err := ParseDateLayout(s)
	if err != nil {
		w.fail(n, "%s", err)
		return DateLayout{}, false
	}
	return l, true
}

func (w *walker) layouts(n *node) []DateLayout {
	var list []DateLayout
	for _, item := range w.list(n, "accept") {
		if l, ok := w.layout(item); ok {
			list = append(list, l)
		}
	}
	return list
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$`)

func (w *walker) constants(m *Mapping, n *node) {
	for _, e := range w.entries(n) {
		c := Constant{Name: e.key.Value}
		switch {
		case c.Name == "":
			w.fail(e.key, "a constant needs a name")
		case e.value.Kind != scalar:
			w.fail(e.value, "constant %q must be a string, a number, true, false or null", c.Name)
		case e.value.Tag == "!!str":
			c.Value = quote(e.value.Value)
		case e.value.Tag == "!!null":
			c.Value = json.RawMessage("null")
		case e.value.Tag == "!!bool" && (e.value.Value == "true" || e.value.Value == "false"):
			c.Value = json.RawMessage(e.value.Value)
		case (e.value.Tag == "!!int" || e.value.Tag == "!!float") && jsonNumber.MatchString(e.value.Value):
			c.Value = json.RawMessage(e.value.Value)
		default:
			w.fail(e.value, "constant %q has no JSON form as it is written: put it in quotes", c.Name)
		}
		m.Constants = append(m.Constants, c)
	}
}

func (w *walker) source(m *Mapping, n *node) {
	m.Format, m.Paging = FormatAuto, Paging{}
	o, ok := w.object(n, "format", "paging")
	if !ok {
		return
	}
	if v, ok := o["format"]; ok {
		m.Format = oneOf(w, v, "format", FormatAuto, FormatArray, FormatNDJSON)
	}
	p, ok := w.object(o["paging"], "mode", "limit", "page_param", "limit_param", "cursor_param", "first_page", "items", "next", "cursor", "max_pages")
	if !ok {
		return
	}
	if v, ok := p["mode"]; ok {
		m.Paging.Mode = oneOf(w, v, "mode", PagingNone, PagingPage, PagingNext, PagingCursor)
	}
	// All strings first, then all numbers: each has a default of its own in Paging.withDefaults.
	for key, dst := range map[string]*string{"page_param": &m.Paging.PageParam, "limit_param": &m.Paging.LimitParam, "cursor_param": &m.Paging.CursorParam,
		"items": &m.Paging.Items, "next": &m.Paging.Next, "cursor": &m.Paging.Cursor} {
		if v, ok := p[key]; ok {
			if s, ok := w.str(v, key); ok && s == "" {
				w.fail(v, "%s must not be empty: leave it out for the default", key)
			} else {
				*dst = s
			}
		}
	}
	if v, ok := p["limit"]; ok {
		limit := w.num(v, "limit", 0, 1_000_000)
		m.Paging.Limit = &limit
	}
	if v, ok := p["first_page"]; ok {
		first := w.num(v, "first_page", 0, 1_000_000)
		m.Paging.FirstPage = &first
	}
	if v, ok := p["max_pages"]; ok {
		m.Paging.MaxPages = w.num(v, "max_pages", 1, 1_000_000_000)
	}
}

func oneOf[T ~string](w *walker, n *node, what string, allowed ...T) T {
	s, ok := w.str(n, what)
	if ok && !slices.Contains(allowed, T(s)) {
		names := make([]string, len(allowed))
		for i, a := range allowed {
			names[i] = string(a)
		}
		w.fail(n, "%s must be one of %s", what, strings.Join(names, ", "))
	}
	return T(s)
}
