package rewrite

import (
	"bytes"

	"github.com/esproxy/esproxy/internal/policy"
)

// sealing seals the values of documents one after another. It is for one goroutine.
type sealing struct {
	eng     *Engine
	counter Counter
	session OpenSession // made when a written-back value is first met
	sealers []DocumentSealer
	counts  []sealCount // not told to counter yet
}

// sealCount is how many values of a field were sealed.
type sealCount struct {
	field *policy.Field
	n     int
}

// count notes a value. To tell the counter of each one took a fourteenth of a bulk's time.
func (s *sealing) count(f *policy.Field) {
	for i := range s.counts {
		if s.counts[i].field == f {
			s.counts[i].n++
			return
		}
	}
	if len(s.counts) >= 64 { // of a policy with very many fields
		s.tell()
	}
	s.counts = append(s.counts, sealCount{f, 1})
}

// tell gives the counter what was noted.
func (s *sealing) tell() {
	if s.counter != nil {
		for _, c := range s.counts {
			s.counter.Sealed(c.field, c.n)
		}
	}
	s.counts = s.counts[:0]
}

func (s *sealing) close() {
	s.tell()
	if s.session != nil {
		s.session.Close()
		s.session = nil
	}
}

// subjects gives the subject that each rule of a target seals under; a nil entry
// means that the document itself must tell it.
type subjects [][]byte

// protects reports whether f has something to seal.
func (f *found) protects() bool { return !f.null && f.field.Mode == policy.Encrypt }

// has reports whether p holds a value to seal under r.
func (p *part) has(r *policy.Rule) bool {
	for i := range p.found {
		if p.found[i].field.Rule == r && p.found[i].protects() {
			return true
		}
	}
	return false
}

// writesBack reports whether p holds a sealed value under a rule without subject: only the
// stored document can tell whether it belongs there.
func (p *part) writesBack() bool {
	for i := range p.found {
		if p.found[i].token && p.found[i].field.Rule.Subject == "" {
			return true
		}
	}
	return false
}

// storedValues are the protected values of a stored document, as read by readStored.
type storedValues struct {
	b    []byte
	part part
}

// holds reports whether the stored document has exactly this value at f.
func (v *storedValues) holds(f *policy.Field, value []byte) bool {
	if v == nil {
		return false
	}
	for _, have := range v.part.found {
		if have.field == f && bytes.Equal(v.b[have.start:have.end], value) {
			return true
		}
	}
	return false
}

// seal appends b[from:to] to dst, with p's values sealed. p's places are in b, between from and to. known gives
// subjects that come from elsewhere than the document and may be nil.
func (s *sealing) seal(dst, b []byte, from, to int, t *target, p *part, known subjects, stored *storedValues) ([]byte, error) {
	if len(p.found) == 0 {
		return append(dst, b[from:to]...), nil
	}
	if cap(s.sealers) < len(t.rules) {
		s.sealers = make([]DocumentSealer, len(t.rules))
	}
	s.sealers = s.sealers[:len(t.rules)]
	defer func() {
		for i, d := range s.sealers {
			if d != nil {
				d.Close()
				s.sealers[i] = nil
			}
		}
	}()
	for i := range p.found {
		f := &p.found[i]
		dst = append(dst, b[from:f.start]...)
		from = f.end
		value := b[f.start:f.end]
		switch {
		case f.null:
			dst = append(dst, value...)
			continue
		case f.field.Mode == policy.Drop:
			dst = append(dst, "null"...)
			continue
		}
		i := t.rule(f.field.Rule)
		subject, err := s.subject(b, t, p, i, known)
		if err != nil {
			return dst, err
		}
		if f.token {
			ok, err := s.belongs(f, value, subject, stored)
			if err != nil {
				return dst, err
			}
			if !ok {
				return dst, &Fault{Status: 400, Type: "esproxy_misplaced_token", Reason: "field [" + f.field.Path + "] of rule [" + f.field.Rule.Name + "] holds text of the reserved sealed form that was not sealed for this field and document; write the plain value, or leave the field out of the update"}
			}
			dst = append(dst, value...)
			continue
		}
		if s.sealers[i] == nil {
			if s.sealers[i], err = s.eng.Sealer.NewDocument(t.rules[i], subject); err != nil {
				s.sealers[i] = nil
				return dst, asFault(err)
			}
		}
		dst = append(dst, '"')
		if dst, err = s.sealers[i].Seal(dst, f.field.Path, value); err != nil {
			return dst, asFault(err)
		}
		dst = append(dst, '"')
		s.count(f.field)
	}
	return append(dst, b[from:to]...), nil
}

// subject returns the subject of rule i: nil when the rule has none.
func (s *sealing) subject(b []byte, t *target, p *part, i int, known subjects) ([]byte, error) {
	r := t.rules[i]
	if r.Subject == "" {
		return nil, nil
	}
	if known != nil && known[i] != nil {
		return known[i], nil
	}
	text, fault := p.subject(b, i, r)
	if fault != nil {
		return nil, fault
	}
	return text, nil
}

// belongs reports whether a sealed value may be written back at f. value is the JSON string. An error means that this
// can't be told now.
func (s *sealing) belongs(f *found, value, subject []byte, stored *storedValues) (bool, error) {
	if f.field.Rule.Subject == "" {
		return stored.holds(f.field, value), nil
	}
	if s.session == nil {
		s.session = s.eng.Opener.NewSession()
	}
	out, err := s.session.Open(nil, f.field.Rule, f.field.Path, subject, value[1:len(value)-1])
	clear(out)
	if err != nil && reasonOf(err) == keysBusy {
		return false, &Fault{Status: 429, Type: "esproxy_busy", Reason: "too many keys are being derived at once; try again"}
	}
	return err == nil, nil
}
