package rewrite

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// FuzzSkim: reading in pieces takes the same texts as reading at once, and capture gives them whole.
func FuzzSkim(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-0.5e+7,"\ud83d\ude00é\ud800",null,true,false,{}],"":[]}`, `12`, `-`, `01`, `"a`, `[1,]`, `{"a":}`, `nul`, `tru e`,
		`"\u12`, "\"\xc1\xa3\"", strings.Repeat("[", 1064) + strings.Repeat("]", 1064), strings.Repeat("[", 1066) + strings.Repeat("]", 1066),
		strings.Repeat(`{"a":`, 1065) + `[]` + strings.Repeat("}", 1065), `{"a" : 1 , "b":2 } x`, `1e`, `1.`, `-1 `,
	} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, cut uint8) {
		if len(text) == 0 || skipSpace(text, 0) > 0 || len(text) > windowSize {
			return
		}
		end, want := skipValue(text, 0, replyDepth)
		var k skimmer
		k.reset()
		pos, done := 0, false
		var err error
		for seen := 0; !done && err == nil && seen < len(text); {
			seen = min(len(text), seen+int(cut)+1)
			pos, done, err = k.run(text[:seen], pos)
		}
		ok := err == nil && (done || pos == len(text) && k.complete())
		if ok != (want == nil) || ok && pos != end {
			t.Fatalf("in pieces %v up to %d, at once %v up to %d", err, pos, want, end)
		}

		for _, limit := range []int64{int64(end), int64(end) - 1} {
			var out bytes.Buffer
			s := newStream(context.Background(), &replyPieces{string(text), int(cut) + 1}, &out, &fakeBudget{})
			value, whole, err := s.capture(limit)
			if want != nil {
				if err == nil {
					t.Fatalf("captured what is no value")
				}
				if err := s.passRest(); err != nil || out.String() != string(text) {
					t.Fatalf("error %v, passed %q", err, out.String())
				}
				s.close()
				continue
			}
			if err != nil || whole != (limit >= int64(end)) {
				t.Fatalf("limit %d: whole %v, error %v", limit, whole, err)
			}
			if whole {
				if string(value) != string(text[:end]) {
					t.Fatalf("captured %q", value)
				}
				s.drop(len(value))
			}
			err = s.flush()
			if err == nil {
				err = s.passRest()
			}
			rest := string(text)
			if whole {
				rest = string(text[end:])
			}
			if err != nil || out.String() != rest {
				t.Fatalf("error %v, passed %q, want %q", err, out.String(), rest)
			}
			s.close()
		}
	})
}

func TestStreamLongNames(t *testing.T) {
	long := strings.Repeat("n", 3*windowSize)
	text := `{"` + long + `":1,"hits":{"hits":[]}}`
	var out bytes.Buffer
	budget := &fakeBudget{}
	s := newStream(context.Background(), strings.NewReader(text), &out, budget)
	var names []string
	err := s.object(func(name []byte) error {
		names = append(names, string(name))
		return s.copyValue()
	})
	if err == nil {
		err = s.finish()
	}
	if err == nil {
		err = s.flush()
	}
	if err != nil || out.String() != text {
		t.Errorf("error %v, wrote %d bytes", err, out.Len())
	}
	if len(names) != 2 || names[0] != "" || names[1] != "hits" {
		t.Errorf("%d names", len(names))
	}
	s.close()
	if budget.out != 0 {
		t.Errorf("%d bytes not given back", budget.out)
	}
}

type replyStuck struct{}

func (replyStuck) Read([]byte) (int, error) { return 0, nil }

func TestStreamNoProgress(t *testing.T) {
	s := newStream(context.Background(), replyStuck{}, io.Discard, &fakeBudget{})
	defer s.close()
	if _, err := s.peek(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("error %v", err)
	}
}
