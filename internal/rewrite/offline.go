package rewrite

import (
	"bytes"
	"context"
	"io"

	"github.com/esproxy/esproxy/internal/policy"
)

// unbounded is the budget of work on one document that is in memory already.
type unbounded struct{}

func (unbounded) Acquire(context.Context, int64) error { return nil }
func (unbounded) TryAcquire(int64) bool                { return true }
func (unbounded) Release(int64)                        {}

// SealDocument appends doc, one whole document, with the values that rules protect sealed. It asks no cluster, so a
// value that was sealed before is refused under a rule without subject. Errors are *Fault.
// Needed of e: Sealer and Opener.
func (e *Engine) SealDocument(dst, doc []byte, rules []*policy.Rule) ([]byte, error) {
	t := e.compiled.get(rules, false)
	if t == nil {
		return append(dst, doc...), nil
	}
	var p part
	if err := newDocScanner(e.Sealer.IsToken).document(doc, t, &p); err != nil {
		return dst, documentFault(err)
	}
	s := sealing{eng: e}
	defer s.close()
	return s.seal(dst, doc, 0, len(doc), t, &p, nil, nil)
}

// OpenDocument copies one whole document from in to out with the values opened that viewer may see under
// rules; the document tells its subjects. Needed of e: Opener.
func (e *Engine) OpenDocument(ctx context.Context, in io.Reader, out io.Writer, rules []*policy.Rule, viewer Viewer, counter Counter) error {
	t := e.compiled.get(rules, false)
	if t == nil {
		_, err := io.Copy(out, in)
		return err
	}
	offline := &Engine{Policy: e.Policy, Opener: e.Opener, Budget: unbounded{}, Limits: e.Limits}
	o := &opening{eng: offline, viewer: viewer, counter: counter, kind: replySource, fallback: t, sourceWhole: true}
	return o.rewrite(ctx, in, out)
}

// SealedAt lists the protected paths at which doc holds a value of the reserved sealed form, each once. A document that
// is not strict JSON has none.
func (e *Engine) SealedAt(doc []byte, rules []*policy.Rule) []string {
	t := e.compiled.get(rules, false)
	if t == nil {
		return nil
	}
	var p part
	scan := newDocScanner(func([]byte) bool { return false })
	if err := scan.document(doc, t, &p); err != nil {
		return nil
	}
	var paths []string
	for i := range p.found {
		f := &p.found[i]
		if bytes.HasPrefix(doc[f.start:], []byte(`"esp1.`)) && (len(paths) == 0 || paths[len(paths)-1] != f.field.Path) {
			paths = append(paths, f.field.Path)
		}
	}
	return paths
}
