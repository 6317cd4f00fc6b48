package rewrite

import (
	"cmp"
	"errors"
	"io"
	"runtime"
	"sync"

	"github.com/esproxy/esproxy/internal/policy"
)

// A long reply is opened by several goroutines. One reads it, finds the units and copies the text into batches with the
// places of their tokens; workers open the tokens of whole batches; batches go out in the order of the text. What must keep the
// order of the reply as it is opened (look-ups of subjects, scrypt, whose derivations are limited for each reply) stays with the
// one that reads. Cryptography is two thirds of the time that a hit takes; two processors took 0.62 to 0.92 of the time of one.
//
// The first soloUnits units are opened without a crew: a hand-over costs more than a short reply takes.

const (
	soloUnits = 64
	// firstUnits is after how many units the first bytes go out. Up to here one write for all is sooner done; to fill the writer's
	// buffer takes ten times as long.
	firstUnits = 8
	// batchSize is how much text is opened at a time: some 50 hits, 150 µs of work.
	batchSize = 64 << 10
	// aloneUnits is up to how many units the one that reads opens itself rather than wake a worker.
	aloneUnits = 8
	// maxWorkers is how many goroutines open beside the one that reads, which a fifth one would only wait for.
	maxWorkers = 4
)

// errPanicked stands for a panic that went on.
var errPanicked = errors.New("the reply could not be opened to its end")

// flusher is a writer that gathers what is written until Flush.
type flusher interface{ Flush() error }

// batch is a piece of the reply.
type batch struct {
	raw   []byte
	units []heldUnit // with tokens, whose bases are in raw
	out   []byte     // raw with the tokens opened

	done    bool // guarded by crew.mu
	written bool // was given to the writer
}

var batchPool = sync.Pool{New: func() any {
	return &batch{raw: make([]byte, 0, batchSize), out: make([]byte, 0, batchSize)}
}}

func (b *batch) emit(p []byte) error {
	b.out = append(b.out, p...)
	return nil
}

// open makes b.out.
func (b *batch) open(h *hand) {
	b.out = b.out[:0]
	done := 0
	for i := range b.units {
		base, u := b.units[i].base, &b.units[i].u
		end := base + u.tokens[len(u.tokens)-1].end // tokens are in the order of the text
		b.out = append(b.out, b.raw[done:base]...)
		_ = h.open(b, b.raw[base:end], u, nil) // emit gives no error
		done = end
	}
	b.out = append(b.out, b.raw[done:]...)
}

// free clears b, which held plaintext, and gives it to the next reply.
func (b *batch) free() {
	if cap(b.out) > 2*batchSize {
		return // masks longer than what they stand for
	}
	clear(b.raw[:cap(b.raw)])
	clear(b.out[:cap(b.out)])
	units := b.units[:cap(b.units)]
	if len(units) > 4*soloUnits {
		units = nil
	}
	for i := range units {
		u := &units[i].u
		clear(u.docs[:cap(u.docs)])
		clear(u.tokens[:cap(u.tokens)])
	}
	*b = batch{raw: b.raw[:0], out: b.out[:0], units: units[:0]}
	batchPool.Put(b)
}

// crew opens the batches of one reply. Its methods are for the goroutine that reads, but for work, run, deliver and write.
type crew struct {
	r     *replier
	out   io.Writer // of one goroutine at a time: of the one that set writing
	cur   *batch    // whose raw is the stream's output
	own   []byte    // the stream's own buffer
	help  hand      // of the one that reads, for whole batches: its other one may be in the middle of a unit whose output goes here
	made  int
	most  int
	jobs  chan *batch // to be opened; never full
	freed chan *batch // written; never full
	wg    sync.WaitGroup

	mu       sync.Mutex
	queue    []*batch // not written yet, in the order of the text
	writing  bool
	err      error
	panicked any
}

// shares reports whether a reply that was opened alone so far is long enough for a crew. That its head and first units went out
// before means that it is this goroutine which begins the reply.
func (r *replier) shares() bool {
	return r.mayShare && r.solo >= cmp.Or(r.o.soloUnits, soloUnits) && !r.s.hold && runtime.GOMAXPROCS(0) > 1
}

// first lets the first units go out.
func (r *replier) first() error {
	err := r.s.flush()
	if f, ok := r.s.out.(flusher); ok && err == nil {
		err = f.Flush()
	}
	return err
}

// slow reports whether the tokens of the unit must be opened by the one that reads.
func (u *unit) slow() bool {
	for i := range u.tokens {
		if u.tokens[i].field.field.Rule.KDF == policy.ScryptPerSubject {
			return true
		}
	}
	return false
}

// newCrew makes the stream's output go through a crew. Without memory for it the reply goes on alone.
func (r *replier) newCrew() error {
	r.solo = 0
	if !r.s.tryAcquire(2 * batchSize) {
		return nil
	}
	if err := r.s.flush(); err != nil {
		return err
	}
	workers := min(runtime.GOMAXPROCS(0)-1, maxWorkers)
	c := &crew{r: r, out: r.s.out, own: r.s.obuf, made: 1, most: workers + 3}
	c.jobs, c.freed = make(chan *batch, c.most), make(chan *batch, c.most)
	c.help = hand{o: r.o, session: r.o.eng.Opener.NewSession()}
	c.begin(batchPool.Get().(*batch))
	r.crew, r.s.sink = c, c.submit
	for range workers {
		c.wg.Go(c.work)
	}
	return nil
}

func (c *crew) begin(b *batch) {
	c.cur = b
	c.r.s.obuf = b.raw[:0]
}

// add puts the unit raw that r.u describes into a batch.
func (c *crew) add(raw []byte) error {
	r := c.r
	if len(raw) > cap(r.s.obuf)-len(r.s.obuf) {
		if err := r.s.flush(); err != nil {
			return err
		}
	}
	if len(raw) > cap(r.s.obuf)-len(r.s.obuf) || r.u.slow() {
		return r.openNow(raw, &r.u, nil) // larger than a batch: its pieces go into some
	}
	c.cur.units = r.keep(c.cur.units)
	return r.s.emit(raw)
}

// submit hands the gathered output over and begins a new batch. It is the stream's sink.
func (c *crew) submit() error {
	b := c.queueUp()
	if len(b.units) <= aloneUnits {
		c.run(&c.help, b)
	} else {
		c.jobs <- b
	}
	c.begin(c.take())
	return c.failure()
}

func (c *crew) queueUp() *batch {
	b := c.cur
	c.cur = nil
	b.raw = c.r.s.obuf
	c.mu.Lock()
	c.queue = append(c.queue, b)
	c.mu.Unlock()
	return b
}

// take gives an empty batch. Where none is free it opens one that waits.
func (c *crew) take() *batch {
	for {
		select {
		case b := <-c.freed:
			return c.reuse(b)
		default:
		}
		if c.made < c.most && c.r.s.tryAcquire(2*batchSize) {
			c.made++
			return batchPool.Get().(*batch)
		}
		select {
		case b := <-c.freed:
			return c.reuse(b)
		case b := <-c.jobs:
			c.run(&c.help, b)
		}
	}
}

// reuse counts what became of the tokens of b, unless it was dropped after a failure, and empties it.
func (c *crew) reuse(b *batch) *batch {
	if b.written {
		for i := range b.units {
			c.r.tally(&b.units[i].u)
		}
	}
	b.raw, b.units, b.done, b.written = b.raw[:0], b.units[:0], false, false
	return b
}

// failure is what a worker met. A panic goes on here, where it ends one request; there it would end the process.
func (c *crew) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.panicked; p != nil {
		c.panicked = nil // once
		c.err = errPanicked
		panic(p)
	}
	return c.err
}

// finish hands over the last batch, waits until all is written and ends the crew.
func (c *crew) finish() error {
	if c.cur != nil && len(c.r.s.obuf) > 0 {
		c.run(&c.help, c.queueUp())
	}
	c.close()
	return c.failure()
}

// close waits for the workers, who write what was handed over, and gives the stream its own buffer back. What was not handed
// over is dropped.
func (c *crew) close() {
	for more := true; more; {
		select {
		case b := <-c.jobs:
			c.run(&c.help, b)
		default:
			more = false
		}
	}
	close(c.jobs)
	c.wg.Wait()
	c.help.close()
	for range len(c.freed) {
		c.reuse(<-c.freed).free()
	}
	if c.cur != nil {
		c.reuse(c.cur).free()
	}
	s := c.r.s
	s.sink, s.hold, s.obuf = nil, false, c.own[:0]
	c.r.crew = nil
}

// work opens batches until there are no more.
func (c *crew) work() {
	h := hand{o: c.r.o, session: c.r.o.eng.Opener.NewSession()}
	defer h.close()
	for b := range c.jobs {
		c.run(&h, b)
	}
}

// run opens b and sees to it that it is written, by whoever writes.
func (c *crew) run(h *hand, b *batch) {
	defer c.deliver(b)
	defer func() {
		if p := recover(); p != nil {
			c.fail(nil, p)
		}
	}()
	if !c.failed() {
		b.open(h)
	}
}

func (c *crew) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil || c.panicked != nil
}

func (c *crew) fail(err error, panicked any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	if c.panicked == nil {
		c.panicked = panicked
	}
}

// deliver marks b as opened and writes all batches whose turn it is, unless somebody is writing: then that one does.
func (c *crew) deliver(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.done = true
	if c.writing {
		return
	}
	c.writing = true
	for len(c.queue) > 0 && c.queue[0].done {
		next := c.queue[0]
		c.queue = c.queue[:copy(c.queue, c.queue[1:])]
		if c.err == nil && c.panicked == nil {
			next.written = true
			last := len(c.queue) == 0
			c.mu.Unlock()
			c.write(next, last)
			c.mu.Lock()
		}
		c.freed <- next
	}
	c.writing = false
}

// write writes one batch. Where no other follows for now, all goes out: the one that reads may have to wait for more.
func (c *crew) write(b *batch, last bool) {
	defer func() {
		if p := recover(); p != nil {
			c.fail(nil, p)
		}
	}()
	_, err := c.out.Write(b.out)
	if f, ok := c.out.(flusher); ok && last && err == nil {
		err = f.Flush()
	}
	if err != nil {
		c.fail(err, nil)
	}
}
