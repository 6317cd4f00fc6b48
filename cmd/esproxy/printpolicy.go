package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/esproxy/esproxy/internal/policy"
)

// printPolicy writes what a policy protects, for people.
func printPolicy(w io.Writer, pol *policy.Policy) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range pol.Rules {
		subject := "one key for the rule"
		if r.Subject != "" {
			subject = "subject " + r.Subject
		}
		fmt.Fprintf(t, "rule %s\tindices %s\t%s, %s, sentinel %s\n", r.Name, strings.Join(r.Indices, ","), subject, r.KDF, r.Sentinel)
		for _, f := range r.Fields {
			fmt.Fprintf(t, "  %s\t%s\tmask %s\n", f.Path, f.Mode, f.Mask)
		}
	}
	names := make([]string, 0, len(pol.Grants))
	for name := range pol.Grants {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		g := pol.Grants[name]
		var shows []string
		for what, how := range g.Reveal {
			shows = append(shows, what+" "+how.String())
		}
		slices.Sort(shows)
		fmt.Fprintf(t, "grant %s\treveals %s\n", name, strings.Join(shows, ", "))
	}
	for _, a := range pol.Allow {
		fmt.Fprintf(t, "allow %s %s\twarning: its bodies pass unread in both directions\n", a.Method, a.Path)
	}
	t.Flush()
}
