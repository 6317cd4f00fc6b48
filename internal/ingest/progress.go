package ingest

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// Summary counts what a run did. Records that were read again after a failure count once.
type Summary struct {
	Passes   int           `json:"passes"`   // times the source was read; more than one with Options.Every
	Read     int64         `json:"read"`     // records taken from the source
	Created  int64         `json:"created"`  // documents stored under a new id
	Updated  int64         `json:"updated"`  // documents stored in the place of another
	Retried  int64         `json:"retried"`  // documents sent again, and pages read again
	Rejected int64         `json:"rejected"` // records that were not stored; see the dead-letter file
	Bytes    int64         `json:"bytes"`    // sent in bulk requests, repetitions included
	Failed   int           `json:"failed"`   // passes that ended early, with Options.Every
	Elapsed  time.Duration `json:"-"`
}

// Indexed is the number of documents stored.
func (s Summary) Indexed() int64 { return s.Created + s.Updated }

// Seconds is the time the run took.
func (s Summary) Seconds() float64 { return s.Elapsed.Seconds() }

// String is the end summary: one line.
func (s Summary) String() string {
	return fmt.Sprintf("read %d, indexed %d (created %d, updated %d), retried %d, rejected %d, %d bytes sent in %.1f s",
		s.Read, s.Indexed(), s.Created, s.Updated, s.Retried, s.Rejected, s.Bytes, s.Seconds())
}

func (s *Summary) add(o Summary) {
	s.Passes += o.Passes
	s.Read += o.Read
	s.Created += o.Created
	s.Updated += o.Updated
	s.Retried += o.Retried
	s.Rejected += o.Rejected
	s.Bytes += o.Bytes
	s.Failed += o.Failed
	s.Elapsed += o.Elapsed
}

// counter is a Summary that the stages of a pass fill together.
type counter struct {
	mu sync.Mutex
	s  Summary // guarded by mu
}

func (c *counter) change(f func(*Summary)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.s)
}

func (c *counter) retried(n int) { c.change(func(s *Summary) { s.Retried += int64(n) }) }
func (c *counter) sent(n int)    { c.change(func(s *Summary) { s.Bytes += int64(n) }) }
func (c *counter) rejected()     { c.change(func(s *Summary) { s.Rejected++ }) }
func (c *counter) read(n int64)  { c.change(func(s *Summary) { s.Read += n }) }
func (c *counter) stored(created bool) {
	c.change(func(s *Summary) {
		if created {
			s.Created++
		} else {
			s.Updated++
		}
	})
}

func (c *counter) summary() Summary {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s
}

// progress shows a pass to a person: a bar on a terminal, a line now and then elsewhere, and the summary at the end.
// Failures to write are ignored: nobody is watching.
type progress struct {
	w     io.Writer
	bar   *progressbar.ProgressBar
	clock Clock
	last  time.Time
}

// The times between two pictures of the bar, and between two progress lines where there is no terminal. The bar's own
// throttle would swallow the last picture, too.
const (
	barEvery  = 65 * time.Millisecond
	lineEvery = 5 * time.Second
)

func newProgress(o *Options) *progress {
	p := &progress{w: o.Progress, clock: o.Clock, last: o.Clock.Now()}
	if p.w == nil {
		p.w = io.Discard
	}
	if o.IsTerminal {
		total := o.Total
		if total <= 0 {
			total = -1
		}
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(p.w),
			progressbar.OptionSetDescription("ingest "+o.Index),
			progressbar.OptionShowCount(),
			progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine of its own
			progressbar.OptionFullWidth(),
		)
	}
	return p
}

// step is called after each batch.
func (p *progress) step(s Summary) {
	done := s.Indexed() + s.Rejected
	now := p.clock.Now()
	if p.bar != nil {
		if now.Sub(p.last) >= barEvery {
			p.last = now
			_ = p.bar.Set64(done)
		}
		return
	}
	if now.Sub(p.last) >= lineEvery {
		p.last = now
		_, _ = fmt.Fprintf(p.w, "ingest: read %d, indexed %d, retried %d, rejected %d\n", s.Read, s.Indexed(), s.Retried, s.Rejected)
	}
}

// end closes the bar and writes the summary.
func (p *progress) end(s Summary) {
	if p.bar != nil {
		_ = p.bar.Set64(s.Indexed() + s.Rejected)
		_ = p.bar.Exit()
		_, _ = fmt.Fprintln(p.w)
	}
	_, _ = fmt.Fprintf(p.w, "ingest: %s\n", s)
}
