package ingest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// DateLayout is one way to write a date, made by [ParseDateLayout]. The zero value fits nothing.
type DateLayout struct {
	pattern string // as written
	kind    layoutKind
	layout  string // for package time; kind layoutPattern only
}

type layoutKind int

const (
	layoutNone layoutKind = iota
	layoutPattern
	layoutISO
	layoutSeconds
	layoutMillis
)

// String returns the layout as it was written.
func (l DateLayout) String() string { return l.pattern }

// ParseDateLayout reads a layout: "iso8601", "epoch_second", "epoch_millis", or
// a pattern in the letters of Elasticsearch's date formats: yyyy MM M dd d HH mm ss, .SSS (1 to 9 letters
// after a dot), XXX (offset as +02:00 or Z), the punctuation "-/.:, " and blanks, and
// quoted 'T' and 'Z'. A pattern must hold year, month and day.
func ParseDateLayout(s string) (DateLayout, error) {
	switch s {
	case "iso8601":
		return DateLayout{pattern: s, kind: layoutISO}, nil
	case "epoch_second":
		return DateLayout{pattern: s, kind: layoutSeconds}, nil
	case "epoch_millis":
		return DateLayout{pattern: s, kind: layoutMillis}, nil
	}
	var out strings.Builder
	have := map[byte]bool{}
	for i := 0; i < len(s); {
		c := s[i]
		run := 1
		for i+run < len(s) && s[i+run] == c {
			run++
		}
		switch {
		case strings.HasPrefix(s[i:], "'T'") || strings.HasPrefix(s[i:], "'Z'"):
			out.WriteByte(s[i+1])
			i += 3
			continue
		case strings.IndexByte("-/.:, ", c) >= 0:
			out.WriteString(s[i : i+run])
			i += run
			continue
		case c == 'S':
			if run > 9 || i == 0 || s[i-1] != '.' {
				return DateLayout{}, fmt.Errorf("date layout %q: S stands 1 to 9 times after a dot", s)
			}
			out.WriteString(strings.Repeat("0", run))
		default:
			part, ok := layoutParts[s[i:i+run]]
			if !ok {
				return DateLayout{}, fmt.Errorf("date layout %q: %q is not one of yyyy MM M dd d HH mm ss .SSS XXX, punctuation, 'T', 'Z'", s, s[i:i+run])
			}
			out.WriteString(part)
		}
		if have[c] {
			return DateLayout{}, fmt.Errorf("date layout %q: %q stands twice", s, string(c))
		}
		have[c] = true
		i += run
	}
	if !have['y'] || !have['M'] || !have['d'] {
		return DateLayout{}, fmt.Errorf("date layout %q: year, month and day are needed", s)
	}
	return DateLayout{pattern: s, kind: layoutPattern, layout: out.String()}, nil
}

// layoutParts are the runs of letters and their form in package time.
var layoutParts = map[string]string{
	"yyyy": "2006", "MM": "01", "M": "1", "dd": "02", "d": "2", "HH": "15", "mm": "04", "ss": "05", "XXX": "Z07:00",
}

// isoLayouts are the forms that iso8601 accepts. Package time reads a fraction after the
// seconds whether or not the layout has one.
var isoLayouts = []string{
	"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02", "2006-01-02T15:04Z07:00", "2006-01-02T15:04",
	"2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02 15:04",
}

// parse reads text, which stood in quotes or not. A date without a zone is in zone.
func (l DateLayout) parse(text string, quoted bool, zone *time.Location) (time.Time, bool) {
	switch l.kind {
	case layoutPattern:
		if !quoted {
			return time.Time{}, false
		}
		t, err := time.ParseInLocation(l.layout, text, zone)
		return t, err == nil
	case layoutISO:
		if !quoted {
			return time.Time{}, false
		}
		for _, layout := range isoLayouts {
			if t, err := time.ParseInLocation(layout, text, zone); err == nil {
				return t, true
			}
		}
	case layoutSeconds, layoutMillis:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return time.Time{}, false
		}
		t := time.Unix(n, 0)
		if l.kind == layoutMillis {
			t = time.UnixMilli(n)
		}
		y := t.UTC().Year()
		return t, y >= 0 && y <= 9999
	}
	return time.Time{}, false
}

// format writes t. Only patterns can be outputs; [ParseMapping] sees to that.
func (l DateLayout) format(t time.Time) string { return t.Format(l.layout) }
