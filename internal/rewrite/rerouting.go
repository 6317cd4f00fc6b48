package rewrite

import (
	"bytes"
	"strings"
)

// The script of a reindex can send each document to another index than the destination: by ctx._index, or by metadata().index
// (org.elasticsearch.script.ReindexMetadata). What it writes to a protected index would not be sealed, so it is let pass only
// where it shows which indices it means.

// ctxMembers are the members of ctx that do not lead to another index.
var ctxMembers = map[string]bool{"_source": true, "op": true, "_id": true, "_routing": true, "_version": true, "_now": true, "_type": true}

// rerouted gives the names that a script of a reindex sends documents to; one that ends in * is the beginning of a name. unclear is
// set where it hands ctx on, or makes a name in a way that is not followed here.
func rerouted(source []byte) (names []string, unclear bool) {
	words := lexScript(source)
	gap := func(i int) string { // what stands between a word and the next one
		end := len(source)
		if i+1 < len(words) {
			end = words[i+1].start
		}
		return string(bytes.TrimSpace(source[words[i].end:end]))
	}
	for i := 0; i < len(words); i++ {
		w := words[i]
		if w.kind != 'a' || w.member {
			continue
		}
		if w.text == "metadata" && strings.HasPrefix(gap(i), "(") {
			return nil, true
		}
		if w.text != "ctx" {
			continue
		}
		if i+1 == len(words) {
			return nil, true
		}
		name, after := words[i+1], gap(i+1)
		switch before := gap(i); {
		case (before == "." || before == "?.") && name.kind == 'a':
		case (before == "[" || before == "?[") && name.kind == '"' && strings.HasPrefix(after, "]"):
			after = strings.TrimSpace(after[1:])
		default:
			return nil, true
		}
		if ctxMembers[name.text] {
			continue
		}
		if name.text != "_index" {
			return nil, true
		}
		switch {
		case after == "=" && i+2 < len(words) && words[i+2].kind == '"' && words[i+2].text != "":
			to := words[i+2]
			switch rest := gap(i + 2); {
			case rest == "" && i+3 == len(words), strings.HasPrefix(rest, ";"), strings.HasPrefix(rest, "}"):
				names = append(names, to.text)
			case strings.HasPrefix(rest, "+") && !strings.HasPrefix(rest, "++") && bytes.IndexByte(source, '?') < 0 && !strings.HasPrefix(to.text, "<"):
				names = append(names, to.text+"*")
			default:
				return nil, true
			}
		case strings.HasPrefix(after, "=") && !strings.HasPrefix(after, "=="), strings.Contains(after, "++"), strings.Contains(after, "--"):
			return nil, true
		case len(after) > 1 && strings.IndexByte("+-*/%&|^<>", after[0]) >= 0 && strings.Contains(after, "="): // +=
			return nil, true
		}
	}
	return names, false
}

// reindexScript judges the script of a reindex by where it sends documents. A stored one that is not there is the server's to tell.
func (r *request) reindexScript(script *treeValue, g *guard) error {
	var text []byte
	if source := scriptSource(script); source != nil {
		text = g.text(source)
	} else if id := script.member("id"); id.isScalar() {
		stored, err := r.storedScript(string(g.text(id)))
		if err != nil || stored == nil {
			return err
		}
		text = stored.source
	} else {
		return nil
	}
	names, unclear := rerouted(text)
	if unclear {
		return refuse(400, "esproxy_script_refused", "the script can send documents to an index that is named while it runs, which may be a protected one, where they would not be sealed; "+
			"use only ctx._source, ctx.op, ctx._id, ctx._routing and ctx._version, or write ctx._index = '…' with a name, or the beginning of one, that no rule names")
	}
	for _, name := range names {
		if err := r.writing.enter(r.ctx, name); err != nil {
			return err
		}
		in, err := r.reach(r.ctx, name)
		if err != nil {
			return err
		}
		rules := in.rules
		for _, rule := range r.Policy.Rules {
			if rule.CouldMatch(name) {
				rules = append(rules, rule)
			}
		}
		if len(rules) > 0 {
			return refuse(400, "esproxy_script_refused", "the script sends documents to an index that rule ["+rules[0].Name+"] protects, where they would not be sealed; send them to an index that no rule names, or read them and write them through the proxy")
		}
	}
	return nil
}
