package policy

import (
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"
)

func (p *parser) rules(n *yaml.Node, out *Policy) {
	if !p.list(n, "rules", func(_ int, v *yaml.Node) {
		if r := p.rule(v, out); r != nil {
			r.ordinal = len(out.Rules)
			out.Rules = append(out.Rules, r)
		}
	}) {
		return
	}
	if len(n.Content) == 0 {
		p.bad(n, "rules is empty, so nothing would be protected; write a rule")
	}
	for i, a := range out.Rules {
		for _, b := range out.Rules[i+1:] {
			c := disagree(a, b)
			if c == nil {
				continue
			}
			out.conflicts[[2]int{a.ordinal, b.ordinal}] = c
			p.overlapping(c)
		}
	}
}

// overlapping reports a conflict whose rules can be seen to meet: some name matches a pattern of each.
func (p *parser) overlapping(c *Conflict) {
	for _, x := range c.A.Indices {
		for i, y := range c.B.Indices {
			if !overlap(x, y) {
				continue
			}
			where := p.places[patternOf{c.B, i}]
			if where == nil {
				where = p.places[c.B] // the default pattern stands nowhere
			}
			if c.Subject {
				p.bad(where, "rule %q meets rule %q in some index (%s and %s), and %s is the subject of one and protected by the other; change the patterns or the subject",
					c.B.Name, c.A.Name, quoted(y), quoted(x), quoted(c.Path))
			} else {
				p.bad(where, "rule %q meets rule %q in some index (%s and %s), and both protect %s; change the patterns, or name the field in one rule only",
					c.B.Name, c.A.Name, quoted(y), quoted(x), quoted(c.Path))
			}
			return
		}
	}
}

// rule reads one rule. It gives nil where not even a name to speak of was found.
func (p *parser) rule(n *yaml.Node, out *Policy) *Rule {
	r := &Rule{byPath: map[string]*Field{}}
	named, patterns := false, false
	var kdf, subject *yaml.Node
	p.mapping(n, "a rule", keys{
		"name": {required: true, read: func(n *yaml.Node) {
			if named = p.name(n, "a rule"); !named {
				return
			}
			r.Name = n.Value
			if out.byName[r.Name] != nil {
				p.bad(n, "a second rule has the name %q; a name is the scope of its values and must be unique", r.Name)
				named = false
				return
			}
			out.byName[r.Name] = r
			p.places[r] = n
		}},
		"indices": {read: func(n *yaml.Node) {
			patterns = true
			p.patterns(n, r)
		}},
		"subject": {read: func(n *yaml.Node) {
			if isNull(n) {
				return
			}
			subject = n
			if parts := p.path(n, "subject"); parts != nil {
				r.Subject, r.SubjectParts = n.Value, parts
			}
		}},
		"kdf": {read: func(n *yaml.Node) {
			kdf = n
			r.KDF, _ = choice(p, n, "kdf", kdfs)
		}},
		"scripts":  {read: func(n *yaml.Node) { r.AllowScripts, _ = choice(p, n, "scripts", scripts) }},
		"sentinel": {read: func(n *yaml.Node) { r.Sentinel, _ = choice(p, n, "sentinel", sentinels) }},
		"fields":   {required: true, read: func(n *yaml.Node) { p.fields(n, r) }},
	})
	if !patterns {
		r.Indices = []string{"*"}
	}
	if r.KDF == ScryptPerSubject && subject == nil {
		p.bad(kdf, "kdf scrypt-per-subject needs a subject; add one or use hkdf")
	}
	if r.Subject != "" {
		for _, f := range r.Fields {
			switch {
			case f.Path == r.Subject:
				p.bad(subject, "the subject %s is itself protected; its value must be readable to find the key, choose another", quoted(r.Subject))
			case under(r.Subject, f.Path):
				p.bad(subject, "the subject %s lies under the protected path %s; its value must be readable to find the key, choose another", quoted(r.Subject), quoted(f.Path))
			case under(f.Path, r.Subject):
				p.bad(subject, "the protected path %s lies under the subject %s; a subject is one string or integer, choose another", quoted(f.Path), quoted(r.Subject))
			}
		}
	}
	if !named {
		return nil
	}
	return r
}

// name checks the name of a rule or grant.
func (p *parser) name(n *yaml.Node, what string) bool {
	if !p.isText(n, "the name of "+what) {
		return false
	}
	if !isName(n.Value, 64, false) {
		p.bad(n, "%s is no name for %s; use 1 to 64 of a-z, 0-9, hyphen and underscore", quoted(n.Value), what)
		return false
	}
	return true
}

func (p *parser) patterns(n *yaml.Node, r *Rule) {
	ok := p.list(n, "indices", func(_ int, v *yaml.Node) {
		if !p.isText(v, "a pattern of indices") {
			return
		}
		if why := wrongPattern(v.Value); why != "" {
			p.bad(v, "pattern %s %s", quoted(v.Value), why)
			return
		}
		if slices.Contains(r.Indices, v.Value) {
			p.bad(v, "pattern %s stands here a second time; remove one", quoted(v.Value))
			return
		}
		p.places[patternOf{r, len(r.Indices)}] = v
		r.Indices = append(r.Indices, v.Value)
	})
	if ok && len(n.Content) == 0 {
		p.bad(n, "indices is empty, so the rule would protect nothing; name patterns, or leave the key out for every index")
	}
}

// wrongPattern says why no index, alias or data stream could be meant by a pattern, "" if one could
// (org.elasticsearch.cluster.metadata.MetadataCreateIndexService#validateIndexOrAliasName).
func wrongPattern(s string) string {
	switch {
	case s == "":
		return "is empty; use * for every index"
	case s == "_all":
		return "is no pattern; use * for every index"
	case s == "." || s == "..":
		return "is no index name; correct it"
	case len(s) > maxPattern:
		return "is longer than an index name can be (255 bytes); shorten it"
	case s[0] == '-':
		return "is an exclusion; name what is meant instead, a rule has no exclusions"
	case s[0] == '<':
		return "is date math; use * for the part that changes"
	case strings.Contains(s, ","):
		return "holds a comma; write a list with one pattern each"
	case strings.Contains(s, ":"):
		return "names a remote cluster or a part of a data stream; write the name alone"
	case strings.Contains(s, "?"):
		return "holds a question mark; the only wildcard is *"
	case s[0] == '_' || s[0] == '+':
		return "begins with " + s[:1] + ", which no index name does; correct it"
	case strings.ContainsAny(s, "\\/\"<>|# "):
		return `holds one of \ / " < > | # or a blank, which no index name does; correct it`
	case s != strings.ToLower(s):
		return "has upper-case letters, which no index name has; write it in lower case"
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return "holds a character that can't be seen; correct it"
		}
	}
	return ""
}

func (p *parser) fields(n *yaml.Node, r *Rule) {
	nodes := map[*Field]*yaml.Node{}
	ok := p.pairs(n, "fields", func(k, v *yaml.Node) {
		f := &Field{Path: k.Value, Parts: p.path(k, "field"), Rule: r}
		p.field(v, f)
		if f.Parts == nil {
			return
		}
		nodes[f] = k
		r.Fields = append(r.Fields, f)
		r.byPath[f.Path] = f
	})
	for _, f := range r.Fields {
		i := strings.LastIndexByte(f.Path, '.')
		if i < 0 {
			continue
		}
		if outer := r.claimed(f.Path[:i]); outer != nil {
			p.bad(nodes[f], "field %s lies under the protected path %s, whose whole value is protected already; remove one", quoted(f.Path), quoted(outer.Path))
		}
	}
	if ok && len(n.Content) == 0 {
		p.bad(n, "fields is empty, so the rule would protect nothing; name a field")
	}
}

func (p *parser) field(n *yaml.Node, f *Field) {
	var mask *yaml.Node
	p.mapping(n, "a field", keys{
		"mode": {required: true, read: func(n *yaml.Node) {
			if n.Kind == yaml.ScalarNode && n.Value == "hash" {
				p.bad(n, "mode hash is reserved and does not exist yet; use encrypt or drop")
				return
			}
			f.Mode, _ = choice(p, n, "mode", modes)
		}},
		"mask": {read: func(n *yaml.Node) {
			mask = n
			f.Mask, _ = choice(p, n, "mask", masks)
		}},
	})
	if f.Mode == Drop && mask != nil {
		p.bad(mask, "a dropped value can't be shown, so it has no mask; remove the mask or use encrypt")
	}
}

// metadata are names at the root that Elasticsearch does not read from documents.
var metadata = []string{"_doc_count", "_field_names", "_id", "_ignored", "_index", "_nested_path", "_routing",
	"_seq_no", "_size", "_source", "_tier", "_type", "_version"}

// path checks a canonical dotted path and gives its parts, or nil.
func (p *parser) path(n *yaml.Node, what string) []string {
	if !p.isText(n, what) {
		return nil
	}
	wrong := func(why string) []string {
		p.bad(n, "%s %s %s", what, quoted(n.Value), why)
		return nil
	}
	if len(n.Value) > maxPath {
		return wrong("is longer than 512 bytes; shorten the path")
	}
	parts := strings.Split(n.Value, ".")
	if len(parts) > maxPathParts {
		return wrong("has more than 32 parts; shorten the path")
	}
	for _, part := range parts {
		switch {
		case part == "":
			return wrong("has an empty part; a path is names with single dots between")
		case strings.TrimSpace(part) == "":
			return wrong("has a blank part; a path is names with single dots between")
		case strings.HasPrefix(part, "esproxy_"):
			return wrong("uses a name that begins with esproxy_, which is reserved; choose another")
		case strings.Contains(part, "*"):
			return wrong("holds a *; name each field, or the object that holds them")
		case strings.Contains(part, "[") && strings.HasSuffix(part, "]"):
			return wrong("names an array position; leave the brackets out, a path goes through arrays")
		}
		for _, c := range part {
			if unicode.IsControl(c) {
				return wrong("holds a control character; correct it")
			}
		}
	}
	if slices.Contains(metadata, parts[0]) {
		return wrong("begins with a metadata field, which documents can't hold; name fields as they stand in the document")
	}
	return parts
}

// grants reads the grants, n is nil where there are none, and adds the built-in one.
func (p *parser) grants(n *yaml.Node, out *Policy) {
	out.Grants = map[string]*Grant{}
	full := &Grant{Name: FullGrant, Reveal: map[string]Reveal{"*": Plain}}
	defer func() { out.Grants[FullGrant] = full }()
	if n == nil || isNull(n) {
		return
	}
	p.list(n, "grants", func(_ int, v *yaml.Node) {
		g := &Grant{Reveal: map[string]Reveal{}}
		var at *yaml.Node
		p.mapping(v, "a grant", keys{
			"name": {required: true, read: func(n *yaml.Node) {
				if p.name(n, "a grant") {
					g.Name, at = n.Value, n
				}
			}},
			"reveal": {required: true, read: func(n *yaml.Node) { p.reveal(n, g, out) }},
		})
		switch {
		case at == nil:
		case out.Grants[g.Name] != nil:
			p.bad(at, "a second grant has the name %q; put both into one", g.Name)
		case g.Name == FullGrant && (len(g.Reveal) != 1 || g.Reveal["*"] != Plain):
			p.bad(at, `the grant full is built in as {"*": plain} and can't be changed; give yours another name`)
		default:
			out.Grants[g.Name] = g
		}
	})
}

func (p *parser) reveal(n *yaml.Node, g *Grant, out *Policy) {
	ok := p.pairs(n, "reveal", func(k, v *yaml.Node) {
		how, ok := choice(p, v, "what a grant shows", reveals)
		if p.revealKey(k, out) && ok {
			g.Reveal[k.Value] = how
		}
	})
	if ok && len(n.Content) == 0 {
		p.bad(n, "reveal is empty, so the grant would show nothing; name a rule.field")
	}
}

// revealKey checks one of "*", "rule.*" and "rule.path".
func (p *parser) revealKey(k *yaml.Node, out *Policy) bool {
	if k.Value == "*" {
		return true
	}
	name, path, dotted := strings.Cut(k.Value, ".")
	r := out.byName[name]
	switch {
	case !dotted:
		p.bad(k, "%s is not rule.field, rule.* or *; correct it", quoted(k.Value))
	case r == nil:
		p.bad(k, "there is no rule %s; correct the name before the first dot", quoted(name))
	case path == "*":
		return true
	case r.byPath[path] == nil:
		p.bad(k, "rule %q has no field %s; correct the path", name, quoted(path))
	case r.byPath[path].Mode == Drop:
		p.bad(k, "%s is dropped, so there is nothing to show; remove the line", quoted(k.Value))
	default:
		return true
	}
	return false
}
