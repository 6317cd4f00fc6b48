package rewrite

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/esproxy/esproxy/internal/policy"
)

// A sentinel is a field of an index's mapping whose value a script computes whenever a document is indexed, from whatever
// side it comes (org.elasticsearch.index.mapper.FieldMapper.Builder, "script"). The script looks at the document's source at the
// protected paths of one rule. It fails, and with it the document, when it finds anything but sealed values and null, and else gives the
// field a term for each path and key in sight.
//
// Its script can't be changed once it is in a mapping. The name is a hash over the whole definition, so that another
// policy, or another text of the script, makes another field beside the old one.

// SentinelPrefix begins the name of every sentinel.
const SentinelPrefix = "esproxy_key_"

// sentinelScript is the same for all rules; the paths are its parameters, so the server compiles it once. A change of one byte gives
// every sentinel another name.
//
//go:embed sentinel.painless
var sentinelScript string

// Sentinel gives the name and the definition (a JSON object, the same bytes for the same paths and modes) of the field that makes
// Elasticsearch refuse plain values at the protected paths of r.
func Sentinel(r *policy.Rule) (name string, definition []byte) {
	paths := make(map[string]string, len(r.Fields))
	for _, f := range r.Fields {
		for i := range f.Parts[:len(f.Parts)-1] {
			paths[strings.Join(f.Parts[:i+1], ".")] = "above"
		}
		paths[f.Path] = f.Mode.String()
	}
	return sentinelOf(paths)
}

func sentinelOf(paths map[string]string) (name string, definition []byte) {
	definition, _ = json.Marshal(sentinelField{ // strings and integers always marshal; names of maps are sorted
		Type: "keyword", OnScriptError: "fail", IgnoreAbove: ignoreAbove,
		Script: sentinelSource{Lang: "painless", Source: sentinelScript, Params: map[string]map[string]string{"paths": paths}},
	})
	sum := sha256.Sum256(definition)
	return SentinelPrefix + hex.EncodeToString(sum[:8]), definition
}

// sentinelField is the definition. ignore_above stands there for index.mapping.ignore_above, which would empty the field where it is low.
type sentinelField struct {
	Type          string         `json:"type"`
	OnScriptError string         `json:"on_script_error"`
	IgnoreAbove   int            `json:"ignore_above"`
	Script        sentinelSource `json:"script"`
}

type sentinelSource struct {
	Lang   string                       `json:"lang"`
	Source string                       `json:"source"`
	Params map[string]map[string]string `json:"params"`
}

// SentinelState is what a mapping says of one sentinel.
type SentinelState uint8

const (
	// SentinelMissing says that the mapping has no field of that name.
	SentinelMissing SentinelState = iota
	// SentinelSame says that it is there, as it is to be.
	SentinelSame
	// SentinelOff says that on_script_error was changed: documents pass whatever the script finds. A PUT of the definition mends it,
	// but what passed meanwhile must be looked for first.
	SentinelOff
	// SentinelDiffers says that the field has another definition: type, script or an option that changes what it holds.
	SentinelDiffers
	// SentinelShadowed says that the field is right, and a runtime field of the same name hides its terms from searches. Plain
	// values are refused all the same.
	SentinelShadowed
)

// String describes s in a few words.
func (s SentinelState) String() string {
	switch s {
	case SentinelMissing:
		return "missing"
	case SentinelSame:
		return "there"
	case SentinelOff:
		return "switched off by on_script_error"
	case SentinelDiffers:
		return "defined otherwise"
	case SentinelShadowed:
		return "hidden by a runtime field"
	}
	return "unknown"
}

// Guards reports whether a cluster with a sentinel in this state refuses plain values.
func (s SentinelState) Guards() bool { return s == SentinelSame || s == SentinelShadowed }

// JudgeSentinel compares a mapping, the object with "properties" and so on as GET _mapping shows it under "mappings", with the
// sentinel of r. What is no JSON object has none.
func JudgeSentinel(mapping []byte, r *policy.Rule) SentinelState {
	var m struct {
		Properties map[string]json.RawMessage `json:"properties"`
		Runtime    map[string]json.RawMessage `json:"runtime"`
	}
	if json.Unmarshal(mapping, &m) != nil {
		return SentinelMissing
	}
	name, definition := Sentinel(r)
	have, ok := m.Properties[name]
	if !ok {
		return SentinelMissing
	}
	state := compareSentinel(have, definition)
	if _, shadow := m.Runtime[name]; shadow && state == SentinelSame {
		return SentinelShadowed
	}
	return state
}

// compareSentinel compares a definition as it stands in a mapping or a body with the right one. The server leaves defaults out.
func compareSentinel(have, want []byte) SentinelState {
	var h struct {
		sentinelField
		Meta any `json:"meta"`
	}
	var w sentinelField
	dec := json.NewDecoder(bytes.NewReader(have))
	dec.DisallowUnknownFields() // an option that the definition does not have
	h.OnScriptError, h.IgnoreAbove, h.Script.Lang = "fail", ignoreAbove, "painless"
	if dec.Decode(&h) != nil || json.Unmarshal(want, &w) != nil {
		return SentinelDiffers
	}
	onError := h.OnScriptError
	h.OnScriptError = w.OnScriptError
	a, errA := json.Marshal(h.sentinelField)
	b, errB := json.Marshal(w)
	switch {
	case errA != nil || errB != nil || !bytes.Equal(a, b):
		return SentinelDiffers
	case onError != w.OnScriptError:
		return SentinelOff
	}
	return SentinelSame
}

// OtherSentinels lists, sorted, the fields of a mapping (as for JudgeSentinel) that are named like sentinels and belong to none of the
// rules: those of an earlier policy or version.
func OtherSentinels(mapping []byte, rules []*policy.Rule) []string {
	var m struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	if json.Unmarshal(mapping, &m) != nil {
		return nil
	}
	for _, r := range rules {
		name, _ := Sentinel(r)
		delete(m.Properties, name)
	}
	var out []string
	for name := range m.Properties {
		if strings.HasPrefix(name, SentinelPrefix) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// genuineSentinel reports whether definition is that of the sentinel with this name, be it of a rule of today or of an earlier policy: the
// name is a hash over the definition, so a body that was copied from a mapping can be told from a forged one.
func genuineSentinel(name string, definition []byte) bool {
	var d sentinelField
	if json.Unmarshal(definition, &d) != nil {
		return false
	}
	own, want := sentinelOf(d.Script.Params["paths"])
	return own == name && compareSentinel(definition, want) == SentinelSame
}

// SentinelTerm is one term of a sentinel: under which key values at a path lie.
type SentinelTerm struct {
	// Path is the protected path, or "" for terms of a document that holds more than 100 pairs of path and key: it then tells the keys
	// alone, because the server takes 100 values of a script.
	Path  string
	Suite byte
	Flags byte
	KeyID string // eight hexadecimal digits, as esproxy keygen prints it
}

// ParseSentinelTerm reads a term: the path, a colon, and the first eight characters of the sealed value after "esp1.", which are suite, flags and
// key id (docs/envelope.md). A path may hold colons itself.
func ParseSentinelTerm(term string) (t SentinelTerm, ok bool) {
	i := strings.LastIndexByte(term, ':')
	if i < 0 {
		return t, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(term[i+1:])
	if err != nil || len(b) != 6 {
		return t, false
	}
	return SentinelTerm{Path: term[:i], Suite: b[0], Flags: b[1], KeyID: hex.EncodeToString(b[2:])}, true
}

// sealedText is what a sentinel takes for a sealed value: the shortest has 211 characters after its prefix.
var sealedText = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\Aesp1\.[A-Za-z0-9_-]{211}[A-Za-z0-9_-]*\z`)
})

// LooksSealed reports whether a sentinel takes text for a sealed value. It says nothing of whether it opens.
func LooksSealed(text string) bool {
	return sealedText().MatchString(text) && (len(text)-len("esp1."))%4 != 1 // what no bytes give in base64
}
