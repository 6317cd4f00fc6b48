//go:build !nodevnode

package devnode

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const defaultDateFormat = "strict_date_optional_time||epoch_millis"

// dateFormat is one alternative of a mapping's format: a named format or a
// pattern of java.time letters.
type dateFormat struct {
	name  string
	parts []datePart // of a pattern
}

type datePart struct {
	letter byte // 0 for literal text
	width  int
	lit    string
}

// unit is the finest field a text gave; rounding up fills the finer ones.
type unit int

const (
	unitYear unit = iota
	unitMonth
	unitDay
	unitHour
	unitMinute
	unitSecond
	unitMilli
)

// compileDates parses "a||b". Formats this node does not know are unsupported.
func compileDates(spec string) ([]dateFormat, *esError) {
	var out []dateFormat
	for _, name := range strings.Split(spec, "||") {
		switch name {
		case "strict_date_optional_time", "date_optional_time", "epoch_millis", "epoch_second", "strict_date_time", "date_time":
			out = append(out, dateFormat{name: name})
			continue
		case "strict_date", "date":
			name = "yyyy-MM-dd"
		case "basic_date":
			name = "yyyyMMdd"
		}
		parts, ok := compilePattern(name)
		if !ok {
			return nil, unsupported("the date format [%s]", name)
		}
		out = append(out, dateFormat{name: name, parts: parts})
	}
	return out, nil
}

func compilePattern(p string) ([]datePart, bool) {
	var parts []datePart
	for i := 0; i < len(p); {
		c := p[i]
		switch {
		case c == '\'':
			e := strings.IndexByte(p[i+1:], '\'')
			if e < 0 {
				return nil, false
			}
			lit := p[i+1 : i+1+e]
			if lit == "" {
				lit = "'"
			}
			parts = append(parts, datePart{lit: lit})
			i += e + 2
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			w := 1
			for i+w < len(p) && p[i+w] == c {
				w++
			}
			if strings.IndexByte("yuMdHmsSXZ", c) < 0 || c == 'M' && w > 2 || w > 4 && c != 'S' {
				return nil, false
			}
			parts = append(parts, datePart{letter: c, width: w})
			i += w
		case strings.IndexByte("[]{}#", c) >= 0:
			return nil, false
		default:
			parts = append(parts, datePart{lit: string(c)})
			i++
		}
	}
	return parts, len(parts) > 0
}

// fields collects what a text said.
type fields struct {
	y, mo, d, h, mi, s, ns int
	off                    int
	hasOff                 bool
	u                      unit
}

func (f fields) time(roundUp bool, loc *time.Location) time.Time {
	if roundUp {
		if f.u < unitMonth {
			f.mo = 12
		}
		if f.u < unitDay {
			f.d = daysIn(f.y, f.mo)
		}
		if f.u < unitHour {
			f.h = 23
		}
		if f.u < unitMinute {
			f.mi = 59
		}
		if f.u < unitSecond {
			f.s = 59
		}
		if f.u < unitMilli {
			f.ns = 999999999
		}
	}
	if f.hasOff {
		loc = time.FixedZone("", f.off)
	}
	return time.Date(f.y, time.Month(f.mo), f.d, f.h, f.mi, f.s, f.ns, loc)
}

func (f fields) valid() bool {
	return f.mo >= 1 && f.mo <= 12 && f.d >= 1 && f.d <= daysIn(f.y, f.mo) && f.h < 24 && f.mi < 60 && f.s < 60
}

func daysIn(y, m int) int { return time.Date(y, time.Month(m)+1, 0, 0, 0, 0, 0, time.UTC).Day() }

// parse reads text by one format. The position is where a pattern failed.
func (d dateFormat) parse(text string) (f fields, pos int, ok bool) {
	f = fields{y: 1970, mo: 1, d: 1}
	switch d.name {
	case "epoch_millis", "epoch_second":
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			fl, err := strconv.ParseFloat(text, 64)
			if err != nil || strings.ContainsAny(text, "eExXnN") {
				return f, 0, false
			}
			v = int64(fl)
		}
		t := time.UnixMilli(v)
		if d.name == "epoch_second" {
			t = time.Unix(v, 0)
		}
		t = t.UTC()
		return fields{y: t.Year(), mo: int(t.Month()), d: t.Day(), h: t.Hour(), mi: t.Minute(), s: t.Second(), ns: t.Nanosecond(), hasOff: true, u: unitMilli}, len(text), true
	case "strict_date_optional_time", "date_optional_time":
		return parseISO(text, false)
	case "strict_date_time", "date_time":
		return parseISO(text, true)
	}
	for _, p := range d.parts {
		if p.letter == 0 {
			if !strings.HasPrefix(text[pos:], p.lit) {
				return f, pos, false
			}
			pos += len(p.lit)
			continue
		}
		if p.letter == 'X' || p.letter == 'Z' {
			n, off, ok := parseOffset(text[pos:], p.letter == 'X')
			if !ok {
				return f, pos, false
			}
			f.off, f.hasOff = off, true
			pos += n
			continue
		}
		lo, hi := p.width, p.width
		if p.width == 1 {
			lo, hi = 1, 19
		}
		e := pos
		for e < len(text) && e-pos < hi && text[e] >= '0' && text[e] <= '9' {
			e++
		}
		if e-pos < lo {
			return f, pos, false
		}
		v, err := strconv.Atoi(text[pos:e])
		if err != nil {
			return f, pos, false
		}
		switch p.letter {
		case 'y', 'u':
			f.y = v
		case 'M':
			f.mo, f.u = v, max(f.u, unitMonth)
		case 'd':
			f.d, f.u = v, max(f.u, unitDay)
		case 'H':
			f.h, f.u = v, max(f.u, unitHour)
		case 'm':
			f.mi, f.u = v, max(f.u, unitMinute)
		case 's':
			f.s, f.u = v, max(f.u, unitSecond)
		case 'S':
			f.ns, f.u = nanos(text[pos:e]), unitMilli
		}
		pos = e
	}
	return f, pos, pos == len(text) && f.valid()
}

func nanos(digits string) int {
	v, _ := strconv.Atoi((digits + "000000000")[:9])
	return v
}

// parseISO reads strict_date_optional_time: a date, optionally cut after the
// year or month, and a time after T, optionally cut after the hour or minute.
func parseISO(t string, needTime bool) (f fields, pos int, ok bool) {
	f = fields{y: 1970, mo: 1, d: 1}
	num := func(w int) (int, bool) {
		if pos+w > len(t) {
			return 0, false
		}
		v := 0
		for _, c := range []byte(t[pos : pos+w]) {
			if c < '0' || c > '9' {
				return 0, false
			}
			v = v*10 + int(c-'0')
		}
		pos += w
		return v, true
	}
	more := func(c byte) bool {
		if pos < len(t) && t[pos] == c {
			pos++
			return true
		}
		return false
	}
	if f.y, ok = num(4); !ok {
		return
	}
	if more('-') {
		if f.mo, ok = num(2); !ok {
			return
		}
		f.u = unitMonth
		if more('-') {
			if f.d, ok = num(2); !ok {
				return
			}
			f.u = unitDay
			if more('T') && pos < len(t) {
				if f.h, ok = num(2); !ok {
					return
				}
				f.u = unitHour
				if more(':') {
					if f.mi, ok = num(2); !ok {
						return
					}
					f.u = unitMinute
					if more(':') {
						if f.s, ok = num(2); !ok {
							return
						}
						f.u = unitSecond
						if more('.') || more(',') {
							e := pos
							for e < len(t) && e-pos < 9 && t[e] >= '0' && t[e] <= '9' {
								e++
							}
							if e == pos {
								return f, pos, false
							}
							f.ns, f.u = nanos(t[pos:e]), unitMilli
							pos = e
						}
					}
				}
				if pos < len(t) {
					n, off, good := parseOffset(t[pos:], true)
					if !good {
						return f, pos, false
					}
					f.off, f.hasOff = off, true
					pos += n
				}
			}
		}
	}
	if needTime && (f.u != unitMilli || !f.hasOff) {
		return f, pos, false
	}
	return f, pos, pos == len(t) && f.valid()
}

func parseOffset(t string, zulu bool) (n, secs int, ok bool) {
	if t == "" {
		return 0, 0, false
	}
	if zulu && t[0] == 'Z' {
		return 1, 0, true
	}
	if t[0] != '+' && t[0] != '-' || len(t) < 3 {
		return 0, 0, false
	}
	h, err := strconv.Atoi(t[1:3])
	if err != nil || h > 18 {
		return 0, 0, false
	}
	n = 3
	m := 0
	rest := t[3:]
	if strings.HasPrefix(rest, ":") {
		rest, n = rest[1:], n+1
	}
	if len(rest) >= 2 {
		if m, err = strconv.Atoi(rest[:2]); err != nil || m > 59 {
			return 0, 0, false
		}
		n += 2
	} else if rest != "" || n == 4 {
		return 0, 0, false
	}
	secs = h*3600 + m*60
	if t[0] == '-' {
		secs = -secs
	}
	return n, secs, true
}

// parseDate reads text by the first format that fits, as milliseconds since
// the epoch.
func parseDate(fs []dateFormat, spec, text string, roundUp bool, loc *time.Location) (int64, *esError) {
	pos := 0
	for _, d := range fs {
		f, p, ok := d.parse(text)
		if ok {
			return f.time(roundUp, loc).UnixMilli(), nil
		}
		pos = p
	}
	why := "Failed to parse with all enclosed parsers"
	if len(fs) == 1 && fs[0].parts != nil {
		if pos >= len(text) {
			why = fmt.Sprintf("Text '%s' could not be parsed at index %d", text, len(text))
		} else {
			why = fmt.Sprintf("Text '%s' could not be parsed at index %d", text, pos)
		}
	}
	e := illegalArg("failed to parse date field [%s] with format [%s]", text, spec)
	e.cause = errf(400, "date_time_parse_exception", "%s", why)
	return 0, e
}

// format prints milliseconds by the first format, as the fields option does.
func (d dateFormat) format(ms int64) string {
	t := time.UnixMilli(ms).UTC()
	switch d.name {
	case "epoch_millis":
		return strconv.FormatInt(ms, 10)
	case "epoch_second":
		return strconv.FormatInt(ms/1000, 10)
	case "strict_date_optional_time", "date_optional_time", "strict_date_time", "date_time":
		return t.Format("2006-01-02T15:04:05.000Z")
	}
	var b strings.Builder
	for _, p := range d.parts {
		switch p.letter {
		case 0:
			b.WriteString(p.lit)
		case 'y', 'u':
			if p.width == 2 {
				fmt.Fprintf(&b, "%02d", t.Year()%100)
			} else {
				fmt.Fprintf(&b, "%0*d", p.width, t.Year())
			}
		case 'M':
			fmt.Fprintf(&b, "%0*d", p.width, t.Month())
		case 'd':
			fmt.Fprintf(&b, "%0*d", p.width, t.Day())
		case 'H':
			fmt.Fprintf(&b, "%0*d", p.width, t.Hour())
		case 'm':
			fmt.Fprintf(&b, "%0*d", p.width, t.Minute())
		case 's':
			fmt.Fprintf(&b, "%0*d", p.width, t.Second())
		case 'S':
			b.WriteString((fmt.Sprintf("%09d", t.Nanosecond()) + "0000000000")[:p.width])
		case 'X':
			b.WriteString("Z")
		case 'Z':
			b.WriteString("+0000")
		}
	}
	return b.String()
}

// dateMath reads a query's date: "now", or a date and "||", followed by steps
// such as +1d, -3M and /d. Rounding with /unit goes up when roundUp is set.
func dateMath(fs []dateFormat, spec, text string, roundUp bool, loc *time.Location, now time.Time) (int64, *esError) {
	var t time.Time
	var steps string
	switch base, rest, found := strings.Cut(text, "||"); {
	case strings.HasPrefix(text, "now"):
		t, steps = now.In(loc), text[3:]
	case found:
		ms, err := parseDate(fs, spec, base, false, loc)
		if err != nil {
			return 0, err
		}
		t, steps = time.UnixMilli(ms).In(loc), rest
	default:
		ms, err := parseDate(fs, spec, text, roundUp, loc)
		if err != nil {
			e := errf(400, "parse_exception", "failed to parse date field [%s] with format [%s]: [%s]", text, spec, err.reason)
			e.cause = err
			return 0, e
		}
		return ms, nil
	}
	for i := 0; i < len(steps); {
		op := steps[i]
		i++
		n, digits := 0, 0
		for i < len(steps) && steps[i] >= '0' && steps[i] <= '9' && digits < 9 {
			n = n*10 + int(steps[i]-'0')
			i++
			digits++
		}
		if digits == 0 {
			n = 1
		}
		if i == len(steps) || strings.IndexByte("+-/", op) < 0 || op == '/' && digits > 0 {
			return 0, errf(400, "parse_exception", "operator not supported for date math [%s]", steps)
		}
		u := steps[i]
		i++
		if op == '/' {
			floor, ok := floorTo(t, u)
			if !ok {
				return 0, errf(400, "parse_exception", "unit [%c] not supported for date math [%s]", u, steps)
			}
			if roundUp {
				next, _ := addUnit(floor, u, 1)
				floor = next.Add(-time.Millisecond)
			}
			t = floor
			continue
		}
		if op == '-' {
			n = -n
		}
		var ok bool
		if t, ok = addUnit(t, u, n); !ok {
			return 0, errf(400, "parse_exception", "unit [%c] not supported for date math [%s]", u, steps)
		}
	}
	return t.UnixMilli(), nil
}

func addUnit(t time.Time, u byte, n int) (time.Time, bool) {
	switch u {
	case 'y':
		return t.AddDate(n, 0, 0), true
	case 'M':
		return t.AddDate(0, n, 0), true
	case 'w':
		return t.AddDate(0, 0, 7*n), true
	case 'd':
		return t.AddDate(0, 0, n), true
	case 'h', 'H':
		return t.Add(time.Duration(n) * time.Hour), true
	case 'm':
		return t.Add(time.Duration(n) * time.Minute), true
	case 's':
		return t.Add(time.Duration(n) * time.Second), true
	}
	return t, false
}

func floorTo(t time.Time, u byte) (time.Time, bool) {
	y, mo, d := t.Date()
	switch u {
	case 'y':
		return time.Date(y, 1, 1, 0, 0, 0, 0, t.Location()), true
	case 'M':
		return time.Date(y, mo, 1, 0, 0, 0, 0, t.Location()), true
	case 'w':
		back := (int(t.Weekday()) + 6) % 7
		return time.Date(y, mo, d-back, 0, 0, 0, 0, t.Location()), true
	case 'd':
		return time.Date(y, mo, d, 0, 0, 0, 0, t.Location()), true
	case 'h', 'H':
		return time.Date(y, mo, d, t.Hour(), 0, 0, 0, t.Location()), true
	case 'm':
		return t.Truncate(time.Minute), true
	case 's':
		return t.Truncate(time.Second), true
	}
	return t, false
}
