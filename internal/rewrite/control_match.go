package rewrite

import (
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// patterns gives the index patterns of a template: a string or a list of them. "template" is the name
// that old legacy templates use.
func (c *controlPass) patterns(root *treeValue) []string {
	var out []string
	for _, name := range [...]string{"index_patterns", "template"} {
		v := root.member(name)
		switch {
		case v.isString():
			out = append(out, strings.Split(string(c.text(v)), ",")...)
		case v.isArray():
			for i := range v.kids {
				out = append(out, string(c.text(&v.kids[i])))
			}
		}
	}
	return out
}

// templateRules gives the rules whose patterns overlap those of a template or claim an alias that it
// gives, and those of them that claim every index of the template: their mappings are added to it.
func templateRules(patterns []string, aliases *treeValue, rules []*policy.Rule) (overlap, all []*policy.Rule) {
	for _, r := range rules {
		overlaps, within := false, true
		for _, p := range patterns {
			// The pattern may be that of a data stream, and the rule's that of its backing indices.
			overlaps = overlaps || r.CouldMatch(p) || r.CouldMatch(".ds-"+p+"-*")
			within = within && claimsAll(r, p)
		}
		for i := range orNull(aliases).kids {
			name := string(aliases.kids[i].name)
			// The server puts the name of the index in.
			overlaps = overlaps || r.CouldMatch(strings.ReplaceAll(name, "{index}", "*"))
		}
		if overlaps {
			overlap = append(overlap, r)
			if within {
				all = append(all, r)
			}
		}
	}
	return overlap, all
}

// claimsAll reports whether one pattern of the rule matches whatever the template's pattern matches: its stars then
// stand for the stars of the template's.
func claimsAll(r *policy.Rule, pattern string) bool {
	for _, own := range r.Indices {
		if strings.HasPrefix(own, ".") == strings.HasPrefix(pattern, ".") && policy.Glob(own, pattern) {
			return true
		}
	}
	return false
}
