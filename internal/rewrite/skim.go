package rewrite

import "errors"

// skimmer reads one value in pieces: it can stop wherever the window ends and go on later. It is as
// strict as skipValue, holds no text, and is slower than it.
type skimmer struct {
	state   skimState
	depth   int
	objects [maxReplyDepth/64 + 1]uint64 // one bit for each open container: is it an object?
}

type skimState uint8

const (
	skimValue     skimState = iota // a value must follow
	skimFirstItem                  // after [: a value or ]
	skimFirstName                  // after {: a name or }
	skimName                       // a name must follow
	skimColon                      // after a name
	skimAfter                      // after a value: a comma or the end of the container
	skimInString                   // inside a string that is a value
	skimInName                     // inside a string that is a name
	skimMinus                      // number: after the minus
	skimZero                       // number: after a leading zero
	skimDigits                     // number: among the first digits
	skimPoint                      // number: after the point
	skimFraction                   // number: among the digits after the point
	skimExponent                   // number: after e
	skimSign                       // number: after the exponent's sign
	skimExpDigits                  // number: among the exponent's digits
	skimDone
)

func (k *skimmer) reset() { k.state, k.depth = skimValue, 0 }

// complete reports whether the end of the text ends the value: it is a number with nothing around it.
func (k *skimmer) complete() bool {
	return k.depth == 0 && (k.state == skimDone || k.numberEnds())
}

func (k *skimmer) numberEnds() bool {
	switch k.state {
	case skimZero, skimDigits, skimFraction, skimExpDigits:
		return true
	}
	return false
}

func (k *skimmer) open(object bool) bool {
	if k.depth >= maxReplyDepth {
		return false
	}
	if object {
		k.objects[k.depth/64] |= 1 << (k.depth % 64)
	} else {
		k.objects[k.depth/64] &^= 1 << (k.depth % 64)
	}
	k.depth++
	return true
}

func (k *skimmer) inObject() bool {
	return k.depth > 0 && k.objects[(k.depth-1)/64]&(1<<((k.depth-1)%64)) != 0
}

// ended is called at the end of a value.
func (k *skimmer) ended() {
	if k.state = skimAfter; k.depth == 0 {
		k.state = skimDone
	}
}

// run reads b from pos on and returns the place up to which all is well formed. done is set when
// that is the end of the value; otherwise run is to be called again with what follows that place.
func (k *skimmer) run(b []byte, pos int) (next int, done bool, err error) {
	for k.state != skimDone {
		if k.state != skimInString && k.state != skimInName && k.state < skimMinus {
			pos = skipSpace(b, pos)
		}
		if pos >= len(b) {
			return pos, false, nil
		}
		c := b[pos]
		switch k.state {
		case skimInString, skimInName:
			end, _, err := scanString(b, pos-1)
			if errors.Is(err, errShort) {
				return end, false, nil
			}
			if err != nil {
				return pos, false, err
			}
			pos = end
			if k.state == skimInName {
				k.state = skimColon
			} else {
				k.ended()
			}
		case skimFirstName, skimName:
			if c == '}' && k.state == skimFirstName {
				pos++
				k.depth--
				k.ended()
				continue
			}
			if c != '"' {
				return pos, false, badSyntax(pos, "expected a member name")
			}
			pos++
			k.state = skimInName
		case skimColon:
			if c != ':' {
				return pos, false, badSyntax(pos, "expected a colon")
			}
			pos++
			k.state = skimValue
		case skimAfter:
			object := k.inObject()
			switch {
			case c == ',' && object:
				k.state = skimName
			case c == ',':
				k.state = skimValue
			case c == '}' && object || c == ']' && !object:
				k.depth--
				k.ended()
			default:
				return pos, false, badSyntax(pos, "expected a comma or the end")
			}
			pos++
		case skimValue, skimFirstItem:
			switch {
			case c == ']' && k.state == skimFirstItem:
				pos++
				k.depth--
				k.ended()
			case c == '"':
				pos++
				k.state = skimInString
			case c == '{' || c == '[':
				if !k.open(c == '{') {
					return pos, false, badSyntax(pos, "nested too deep")
				}
				pos++
				k.state = skimFirstItem
				if c == '{' {
					k.state = skimFirstName
				}
			case c == 't' || c == 'f' || c == 'n':
				end, err := scanLiteral(b, pos)
				if errors.Is(err, errShort) {
					return pos, false, nil
				}
				if err != nil {
					return pos, false, err
				}
				pos = end
				k.ended()
			case c == '-':
				pos++
				k.state = skimMinus
			case c == '0':
				pos++
				k.state = skimZero
			case c-'1' <= 8:
				pos++
				k.state = skimDigits
			default:
				return pos, false, badSyntax(pos, "expected a value")
			}
		default:
			took, err := k.number(c, pos)
			if err != nil {
				return pos, false, err
			}
			if took {
				pos++
			}
		}
	}
	return pos, true, nil
}

// number reads one byte of a number, or ends the number before it.
func (k *skimmer) number(c byte, pos int) (took bool, err error) {
	digit := c-'0' <= 9
	switch {
	case k.state == skimMinus && c == '0':
		k.state = skimZero
	case k.state == skimMinus && digit:
		k.state = skimDigits
	case (k.state == skimDigits || k.state == skimFraction || k.state == skimExpDigits) && digit:
	case (k.state == skimZero || k.state == skimDigits) && c == '.':
		k.state = skimPoint
	case k.state == skimPoint && digit:
		k.state = skimFraction
	case (k.state == skimZero || k.state == skimDigits || k.state == skimFraction) && c|0x20 == 'e':
		k.state = skimExponent
	case k.state == skimExponent && (c == '+' || c == '-'):
		k.state = skimSign
	case (k.state == skimExponent || k.state == skimSign) && digit:
		k.state = skimExpDigits
	case k.numberEnds():
		k.ended()
		return false, nil
	default:
		return false, badSyntax(pos, "bad number")
	}
	return true, nil
}
