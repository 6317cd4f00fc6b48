package main

import (
	"regexp"
	"strings"
)

// types are the declarations of one types.ts by name, each with the lines between its braces, or what follows the equals
// sign of an alias. The file is generated, so its layout can be relied on: two blanks for each level.
type types map[string]declaration

type declaration struct {
	extends []string
	lines   []string // of an interface
	alias   string   // of a type
}

var (
	interfaceLine = regexp.MustCompile(`^export interface (\w+)(?:<.*?>)?(?: extends (.*?))? \{$`)
	typeLine      = regexp.MustCompile(`^export type (\w+)(?:<.*?>)? = (.*)$`)
	memberLine    = regexp.MustCompile(`^( +)'?([\w.$-]+)'?\??: *(.*)$`)
	indexLine     = regexp.MustCompile(`^( +)\[\w+: \w+\]`)
	arguments     = regexp.MustCompile(`<.*>`)
)

func parseTypes(source string) types {
	t := types{}
	name, open := "", false
	for line := range strings.Lines(source) {
		line = strings.TrimRight(line, "\n")
		switch {
		case open && line == "}":
			open = false
		case open:
			d := t[name]
			d.lines = append(d.lines, line)
			t[name] = d
		default:
			if m := interfaceLine.FindStringSubmatch(line); m != nil {
				name, open = m[1], true
				d := declaration{}
				for one := range strings.SplitSeq(arguments.ReplaceAllString(m[2], ""), ",") {
					d.extends = append(d.extends, strings.TrimSpace(one))
				}
				t[name] = d
			} else if m := typeLine.FindStringSubmatch(line); m != nil {
				name = m[1]
				t[name] = declaration{alias: m[2]}
			} else if strings.HasPrefix(line, "  & ") || strings.HasPrefix(line, "  | ") {
				d := t[name]
				d.alias += strings.TrimPrefix(line, " ")
				t[name] = d
			}
		}
	}
	return t
}

// paramsOf gives the parameters of a request, in path and query.
func (t types) paramsOf(name string) []string {
	var out []string
	d, ok := t[name]
	if !ok {
		return nil
	}
	for _, e := range d.extends {
		out = append(out, t.paramsOf(e)...)
	}
	for _, line := range d.lines {
		if m := memberLine.FindStringSubmatch(line); m != nil && m[1] == "  " && m[2] != "body" {
			out = append(out, m[2])
		}
	}
	return out
}

// bodyOf gives the names of the members of a request's body.
func (t types) bodyOf(name string) []string {
	lines := t[name].lines
	for i, line := range lines {
		m := memberLine.FindStringSubmatch(line)
		if m == nil || m[1] != "  " || m[2] != "body" {
			continue
		}
		if m[3] != "{" {
			return t.namesOf(m[3], 0)
		}
		return namesAt(lines[i+1:], "    ", "  }")
	}
	return nil
}

// namesAt gives the members that stand indented so, up to the line end.
func namesAt(lines []string, indent, end string) []string {
	var out []string
	for _, line := range lines {
		if end != "" && line == end {
			break
		}
		if m := memberLine.FindStringSubmatch(line); m != nil && m[1] == indent {
			out = append(out, m[2])
		} else if m := indexLine.FindStringSubmatch(line); m != nil && m[1] == indent {
			out = append(out, "*")
		}
	}
	return out
}

// namesOf gives the members that values of a type have.
func (t types) namesOf(expression string, depth int) []string {
	if depth > 8 {
		return nil
	}
	expression = strings.TrimSpace(expression)
	switch {
	case expression == "any", strings.HasPrefix(expression, "Record<"), strings.HasPrefix(expression, "{ ["):
		return []string{"*"}
	case strings.HasSuffix(expression, "[]"):
		return nil // a list has no members
	}
	var out []string
	if parts := regexp.MustCompile(` [|&] `).Split(expression, -1); len(parts) > 1 {
		for _, p := range parts {
			out = append(out, t.namesOf(p, depth+1)...)
		}
		return out
	}
	d := t[arguments.ReplaceAllString(expression, "")]
	if d.alias != "" {
		return t.namesOf(d.alias, depth+1)
	}
	for _, e := range d.extends {
		out = append(out, t.namesOf(e, depth+1)...)
	}
	return append(out, namesAt(d.lines, "  ", "")...)
}
