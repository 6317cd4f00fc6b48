package cluster

import (
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones by name work without files of the system
	"unicode"

	"github.com/esproxy/esproxy/internal/rewrite"
)

// Date math in index names, after org.elasticsearch.cluster.metadata.IndexNameExpressionResolver
// (DateMathExpressionResolver) and org.elasticsearch.common.time.JavaDateMathParser:
//
//	<static{math{format|zone}}static…>
//
// math is "now" followed by any of +nU, -nU and /U with units y M w d h H m s. Formats understood are literal text and
// the letters u y M d D H m s with counts whose meaning does not depend on a locale. All else is refused, because a
// name computed otherwise than the server does would be under the wrong rules.

func isDateMath(s string) bool {
	return len(s) >= 2 && s[0] == '<' && s[len(s)-1] == '>'
}

func badDateMath(why string) *rewrite.Fault {
	return badName("date math in an index name is not understood by the proxy (" + why + "); send the computed name")
}

// evalDateMath computes an expression for which isDateMath holds.
func evalDateMath(expr string, now time.Time) (string, error) {
	var out, in strings.Builder
	var escape, inHolder, inFormat bool
	for _, r := range expr[1 : len(expr)-1] {
		escaped := escape
		escape = false
		if r == '\\' {
			if escaped {
				out.WriteRune(r)
			} else {
				escape = true
			}
			continue
		}
		if !inHolder {
			switch {
			case r == '{' && !escaped:
				inHolder = true
			case r == '}' && !escaped:
				return "", badDateMath("a closing brace without an opening one")
			default:
				out.WriteRune(r)
			}
			continue
		}
		if escaped {
			// Braces in a format mean something else to the server once unescaped; nobody needs them.
			return "", badDateMath("an escape inside braces")
		}
		switch r {
		case '{':
			if inFormat {
				return "", badDateMath("a brace inside a format")
			}
			inFormat = true
			in.WriteRune(r)
		case '}':
			if inFormat {
				inFormat = false
				in.WriteRune(r)
				continue
			}
			s, err := evalHolder(in.String(), now)
			if err != nil {
				return "", err
			}
			out.WriteString(s)
			in.Reset()
			inHolder = false
		default:
			in.WriteRune(r)
		}
	}
	switch {
	case inHolder:
		return "", badDateMath("a brace is not closed")
	case escape:
		return "", badDateMath("an escape at the end")
	case out.Len() == 0:
		return "", badDateMath("it gives an empty name")
	}
	return out.String(), nil
}

// evalHolder computes what stands between the outer braces.
func evalHolder(s string, now time.Time) (string, error) {
	format, zone := "uuuu.MM.dd", time.UTC
	math, spec, ok := strings.Cut(s, "{")
	if ok {
		spec, closed := strings.CutSuffix(spec, "}")
		if !closed || strings.ContainsAny(spec, "{}") {
			return "", badDateMath("the format is not the last thing in the braces")
		}
		var id string
		var hasZone bool
		if format, id, hasZone = strings.Cut(spec, "|"); hasZone {
			var err error
			if zone, err = parseZone(id); err != nil {
				return "", err
			}
		}
	}
	t, err := evalMath(math, now.In(zone))
	if err != nil {
		return "", err
	}
	return formatJava(format, t)
}

// parseZone reads a zone as java.time.ZoneId.of does: Z, UTC, GMT, ±h, ±hh, ±hh:mm, ±hhmm, or a name of the tz database.
func parseZone(id string) (*time.Location, error) {
	bad := func() (*time.Location, error) { return nil, badDateMath("the time zone") }
	switch id {
	case "Z", "UTC", "GMT":
		return time.UTC, nil
	case "":
		return bad()
	}
	if id[0] == '+' || id[0] == '-' {
		digits := id[1:]
		hh, mm := digits, "0"
		switch {
		case len(digits) == 5 && digits[2] == ':':
			hh, mm = digits[:2], digits[3:]
		case len(digits) == 4:
			hh, mm = digits[:2], digits[2:]
		case len(digits) > 2:
			return bad()
		}
		h, err1 := strconv.ParseUint(hh, 10, 8)
		m, err2 := strconv.ParseUint(mm, 10, 8)
		if err1 != nil || err2 != nil || h > 18 || m > 59 || h == 18 && m > 0 {
			return bad()
		}
		off := int(h*3600 + m*60)
		if id[0] == '-' {
			off = -off
		}
		return time.FixedZone(id, off), nil
	}
	// Names with a slash alone: three-letter ones mean different things to Java and to the tz database.
	if !strings.Contains(id, "/") || strings.Contains(id, "..") || strings.HasPrefix(id, "/") {
		return bad()
	}
	loc, err := time.LoadLocation(id)
	if err != nil {
		return bad()
	}
	return loc, nil
}

// evalMath computes "now" and the operations after it. now is in the zone that rounding is to happen in.
func evalMath(s string, now time.Time) (time.Time, error) {
	ops, ok := strings.CutPrefix(s, "now")
	if !ok {
		return now, badDateMath("only now is understood as the date")
	}
	t := now
	for len(ops) > 0 {
		op := ops[0]
		ops = ops[1:]
		if op != '+' && op != '-' && op != '/' {
			return t, badDateMath("an operator that is not +, - or /")
		}
		digits := len(ops) - len(strings.TrimLeft(ops, "0123456789"))
		n := 1
		if digits > 0 {
			var err error
			if n, err = strconv.Atoi(ops[:digits]); err != nil || n > 100_000 {
				return t, badDateMath("a number that is too large")
			}
		}
		if digits == len(ops) {
			return t, badDateMath("it ends without a unit")
		}
		unit := ops[digits]
		ops = ops[digits+1:]
		if op == '/' {
			if n != 1 {
				return t, badDateMath("rounding to more than one unit")
			}
			var ok bool
			if t, ok = round(t, unit); !ok {
				return t, badDateMath("an unknown unit")
			}
			continue
		}
		if op == '-' {
			n = -n
		}
		var ok bool
		if t, ok = add(t, n, unit); !ok {
			return t, badDateMath("an unknown unit")
		}
	}
	return t, nil
}

// add adds calendar units in local time and clock units in absolute time. Months and years
// keep to the last day of a shorter month, as java.time does and time.AddDate does not.
func add(t time.Time, n int, unit byte) (time.Time, bool) {
	switch unit {
	case 'y':
		return addMonths(t, 12*n), true
	case 'M':
		return addMonths(t, n), true
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

func addMonths(t time.Time, n int) time.Time {
	y, m, d := t.Date()
	first := time.Date(y, m+time.Month(n), 1, 12, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	return time.Date(first.Year(), first.Month(), min(d, last), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), t.Location())
}

// round goes down to the start of the unit in t's zone; weeks begin on Monday.
func round(t time.Time, unit byte) (time.Time, bool) {
	y, m, d := t.Date()
	_, min, s := t.Clock()
	switch unit {
	case 'y':
		m, d = 1, 1
	case 'M':
		d = 1
	case 'w':
		d -= (int(t.Weekday()) + 6) % 7
	case 'd':
	case 'h', 'H':
		return t.Add(-time.Duration(min)*time.Minute - time.Duration(s)*time.Second - time.Duration(t.Nanosecond())), true
	case 'm':
		return t.Add(-time.Duration(s)*time.Second - time.Duration(t.Nanosecond())), true
	case 's':
		return t.Add(-time.Duration(t.Nanosecond())), true
	default:
		return t, false
	}
	return time.Date(y, m, d, 0, 0, 0, 0, t.Location()), true
}

// formatJava writes t by a java.time.format.DateTimeFormatter pattern, of which it knows the part described above.
func formatJava(pattern string, t time.Time) (string, error) {
	if pattern == "" || pattern[0] == '8' { // a leading 8 is cut off by the server
		return "", badDateMath("the format")
	}
	var out strings.Builder
	for i := 0; i < len(pattern); {
		c := pattern[i]
		if c == '\'' {
			end := strings.IndexByte(pattern[i+1:], '\'')
			if end < 1 || strings.HasPrefix(pattern[i+1+end+1:], "'") {
				return "", badDateMath("quotes in the format")
			}
			out.WriteString(pattern[i+1 : i+1+end])
			i += end + 2
			continue
		}
		if !unicode.IsLetter(rune(c)) || c >= 0x80 {
			if strings.IndexByte("-._/ :", c) < 0 && (c < '0' || c > '9') {
				return "", badDateMath("a character in the format")
			}
			out.WriteByte(c)
			i++
			continue
		}
		n := 1
		for i+n < len(pattern) && pattern[i+n] == c {
			n++
		}
		i += n
		v := 0
		switch {
		case (c == 'y' || c == 'u') && (n == 1 || n == 4):
			v = t.Year()
		case (c == 'y' || c == 'u') && n == 2:
			v = t.Year() % 100
		case c == 'M' && n <= 2:
			v = int(t.Month())
		case c == 'd' && n <= 2:
			v = t.Day()
		case c == 'D' && (n == 1 || n == 3):
			v = t.YearDay()
		case c == 'H' && n <= 2:
			v = t.Hour()
		case c == 'm' && n <= 2:
			v = t.Minute()
		case c == 's' && n <= 2:
			v = t.Second()
		default:
			return "", badDateMath("a letter in the format")
		}
		digits := strconv.Itoa(v)
		for k := len(digits); k < n; k++ {
			out.WriteByte('0')
		}
		out.WriteString(digits)
	}
	return out.String(), nil
}
