package policy

import (
	"fmt"
	"strings"
)

// Problem is one mistake in a policy file.
type Problem struct {
	File      string
	Line, Col int    // from 1; Col counts characters
	Text      string // what was wrong; what to do
}

// String gives "file:line:col: text".
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Col, p.Text)
}

// Problems are all mistakes of one policy file, in the order of the file. It is never empty as an error.
type Problems []Problem

// Error gives one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
