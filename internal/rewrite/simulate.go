package rewrite

import (
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// simulate carries trials of ingest pipelines: documents that are run through a pipeline and shown, not stored. A
// document for a protected index is sealed like one that is written there, so that the pipeline sees what it will see. One that
// names no index and holds a protected field is refused: there is no telling what it would be sealed under.
func (r *request) simulate() (Transform, error) {
	return r.treeBody(func(body []byte, root *treeValue) ([]byte, error) {
		c := &controlPass{guard: r.newGuard(r.Policy.Rules, body)}
		if err := r.simulated(c, root); err != nil {
			return nil, err
		}
		return c.edited(), nil
	})
}

func (r *request) simulated(c *controlPass, root *treeValue) error {
	seal := sealing{eng: r.Engine, counter: r.call.Counter}
	defer seal.close()
	scan := newDocScanner(r.Sealer.IsToken)
	for i := range orNull(root.member("docs")).kids {
		if err := r.simulatedDocument(c, &seal, scan, &root.member("docs").kids[i]); err != nil {
			return err
		}
	}
	for i := range root.kids {
		m := &root.kids[i]
		var err error
		switch string(m.name) {
		case "docs", "merge_type":
		case "pipeline":
			err = c.pipeline(m)
		case "pipeline_substitutions":
			for k := range m.kids {
				if err = c.pipeline(&m.kids[k]); err != nil {
					break
				}
			}
		// Nothing is made of these, so that mappings that would be refused elsewhere do no harm here; constants would.
		case "mapping_addition":
			err = c.substituted(m)
		case "component_template_substitutions", "index_template_substitutions":
			for k := range m.kids {
				if err = c.substituted(orNull(m.kids[k].member("template").member("mappings"))); err != nil {
					break
				}
				if f := c.documentNames(&m.kids[k], ""); f != nil {
					err = guardFault(f, "a template")
					break
				}
			}
		default:
			err = c.unknownMember(m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// substituted reads a mapping that is only tried out, and looks for values in it.
func (c *controlPass) substituted(mapping *treeValue) error {
	if f := c.documentNames(mapping, ""); f != nil {
		return guardFault(f, "a mapping")
	}
	return c.plainValues(mapping)
}

// simulatedDocument plans the sealing of one {"_index": …, "_source": …}.
func (r *request) simulatedDocument(c *controlPass, seal *sealing, scan *docScanner, doc *treeValue) error {
	for i := range doc.kids {
		switch m := &doc.kids[i]; string(m.name) {
		case "_index", "_id", "_routing", "_source", "_version", "_version_type", "_if_seq_no", "_if_primary_term":
		default:
			if err := c.unknownMember(m); err != nil {
				return err
			}
		}
	}
	source := doc.member("_source")
	if source == nil || !source.isObject() {
		if f := c.documentNames(doc, ""); f != nil {
			return guardFault(f, "a document")
		}
		return nil
	}
	index := r.value("index")
	if m := doc.member("_index"); m != nil && !m.isNull() {
		index = string(c.text(m))
	}
	if index == "" {
		if f := c.documentNames(source, ""); f != nil {
			return refuse(400, "esproxy_bad_request", "a document holds a value for ["+f.Path+"], which rule ["+f.Rule.Name+"] protects, and names no index that it could be sealed for; give the document an [_index]")
		}
		return nil
	}
	pl, err := r.place(r.ctx, index)
	if err != nil || pl.t == nil {
		return err
	}
	return r.sealInto(c, seal, scan, pl, source, doc.member("_id"), doc.member("_routing"))
}

// sealInto plans the sealing of source, a document for pl. id and routing are those of a document that it may be written back to.
func (r *request) sealInto(c *controlPass, seal *sealing, scan *docScanner, pl *place, source, id, routing *treeValue) error {
	raw := c.body[source.start:source.end]
	var p part
	if err := scan.document(raw, pl.t, &p); err != nil {
		return documentFault(err)
	}
	var stored *storedValues
	if p.writesBack() && id != nil {
		was, err := lookUpOne(r.ctx, r.Engine, r.call, scan, pl, string(c.text(id)), string(c.text(orNull(routing))))
		if err != nil {
			return err
		}
		stored = was.stored
	}
	out, err := seal.seal(make([]byte, 0, 2*len(raw)), raw, 0, len(raw), pl.t, &p, nil, stored)
	if err != nil {
		return err
	}
	c.edits = append(c.edits, edit{source.start, source.end, out})
	return nil
}

// terms carries requests that analyse text or make up a document to list its terms, or walk over terms: what they hold for a protected
// field would go up in clear and is worth nothing beside sealed values.
func (r *request) terms() (Transform, error) {
	if len(r.Policy.Rules) == 0 {
		return nil, nil
	}
	rules := r.Policy.Rules
	if index := r.value("index"); index != "" {
		in, err := r.reach(r.ctx, index)
		if err != nil {
			return nil, err
		}
		if rules = in.named; len(rules) == 0 && r.api != "mtermvectors" && r.api != "termvectors" {
			return nil, nil
		}
	}
	if err := guardURL(rules, r.urlParams()); err != nil {
		return nil, err
	}
	if field, text := r.param("field"), r.param("text"); text != "" {
		if f := newGuard(rules, nil).named([]byte(field), andAbove); f != nil {
			return nil, guardFault(f, "the parameter [text]")
		}
	}
	return r.treeBody(func(body []byte, root *treeValue) ([]byte, error) {
		g := newGuard(rules, body)
		switch r.api {
		case "indices.analyze":
			return body, g.analyzed(root)
		case "graph.explore":
			return body, g.graph(root)
		case "mtermvectors":
			return body, r.manyVectors(root, body, rules)
		}
		return body, r.vectors(g, root)
	})
}

// param is a parameter of the query string alone.
func (r *request) param(name string) string {
	v, _ := lookParam(r.params, name)
	return v
}

// analyzed reads a request of _analyze (RestAnalyzeAction).
func (g *guard) analyzed(v *treeValue) error {
	if f := g.listed(v.member("field")); f != nil && v.member("text") != nil {
		return guardFault(f, "the member [text]")
	}
	return g.members(v, "analyzer", "attributes", "char_filter", "explain", "field", "filter", "normalizer", "text", "tokenizer")
}

// vectors reads a request of _termvectors (TermVectorsRequest). per_field_analyzer has the names of fields for its members.
func (g *guard) vectors(v *treeValue) error {
	if f := g.documentNames(v.member("doc"), ""); f != nil {
		return guardFault(f, "the member [doc]")
	}
	return g.members(v, "doc", "fields", "offsets", "positions", "payloads", "term_statistics", "termStatistics", "field_statistics", "fieldStatistics",
		"dfs", "per_field_analyzer", "perFieldAnalyzer", "filter", "routing", "_routing", "version", "version_type", "_version", "_version_type", "_index", "_id", "_type")
}

// vectors is guard.vectors under the rules of the index that the body names, which counts before that of the path.
func (r *request) vectors(g *guard, v *treeValue) error {
	if m := v.member("_index"); m != nil && !m.isNull() {
		in, err := r.reach(r.ctx, string(g.text(m)))
		if err != nil {
			return err
		}
		g = newGuard(in.named, g.body)
	}
	return g.vectors(v)
}

// manyVectors reads a request of _mtermvectors: each document under the rules of the index that it names.
func (r *request) manyVectors(root *treeValue, body []byte, rules []*policy.Rule) error {
	g := newGuard(rules, body)
	if err := g.vectors(orNull(root.member("parameters"))); err != nil {
		return err
	}
	for i := range orNull(root.member("docs")).kids {
		if err := r.vectors(g, &root.member("docs").kids[i]); err != nil {
			return err
		}
	}
	return newGuard(r.Policy.Rules, body).members(root, "docs", "ids", "parameters")
}

// graph reads a request of graph exploration: vertices are fields with terms to begin from or to leave out.
func (g *guard) graph(v *treeValue) error {
	for i := range v.kids {
		m := &v.kids[i]
		var err error
		switch string(m.name) {
		case "query":
			err = g.query(m)
		case "connections":
			err = g.graph(m)
		case "vertices":
			err = g.each(m, func(vertex *treeValue) error {
				if f := g.listed(vertex.member("field")); f != nil && (vertex.member("include") != nil || vertex.member("exclude") != nil) {
					return guardFault(f, "a vertex")
				}
				return g.members(vertex, "field", "include", "exclude", "size", "min_doc_count", "shard_min_doc_count")
			})
		case "controls":
			err = g.members(m, "use_significance", "sample_size", "timeout", "sample_diversity")
		default:
			err = g.unknownMember(m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// members reads the members of v that are not among the known ones.
func (g *guard) members(v *treeValue, known ...string) error {
	if !v.isObject() {
		return nil
	}
next:
	for i := range v.kids {
		m := &v.kids[i]
		for _, name := range known {
			if string(m.name) == name {
				continue next
			}
		}
		if err := g.unknownMember(m); err != nil {
			return err
		}
	}
	return nil
}

// monitoring carries monitoring documents of the product itself. They go into system indices, which rules name only by patterns that begin
// with a dot; a document that holds a protected field is none of these.
func (r *request) monitoring() (Transform, error) {
	for _, rule := range r.Policy.Rules {
		for _, pattern := range rule.Indices {
			if strings.HasPrefix(pattern, ".") && (&policy.Policy{Rules: []*policy.Rule{rule}}).CouldMatch(".monitoring-*") {
				return nil, r.refused()
			}
		}
	}
	return r.documents()
}
