package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// runPass reads the source once, from the checkpoint's place to its end.
func runPass(ctx context.Context, o *Options) (Summary, error) {
	begin := o.Clock.Now()
	p := &pass{o: o, count: &counter{s: Summary{Passes: 1}}}
	p.progress = newProgress(o)
	err := p.run(ctx)
	s := p.count.summary()
	s.Elapsed = o.Clock.Now().Sub(begin)
	p.progress.end(s)
	return s, err
}

type pass struct {
	o        *Options
	count    *counter
	progress *progress
	letters  *deadLetters
	sender   *sender
	place    *checkpoint
}

func (p *pass) run(ctx context.Context) (err error) {
	o := p.o
	src, from, err := p.open()
	if err != nil {
		return err
	}
	if p.sender, err = newSender(o, p.count); err != nil {
		return err
	}
	p.letters = &deadLetters{path: o.DeadLetter, index: o.Index, sealer: o.Sealer, clock: o.Clock, log: o.Logger}
	defer func() { err = errors.Join(err, p.letters.close()) }()
	p.sender.reject = func(it item, doc []byte, status int, kind string) error {
		p.count.rejected()
		return p.letters.add(deadLetter{ID: it.id, Status: status, Type: kind}, doc)
	}
	if from != (position{}) {
		o.Logger.Info("going on where an interrupted run stopped", "page", from.Page, "records", from.Records)
	}

	records := make(chan record)
	batches := make(chan *batch)
	group, ctx := errgroup.WithContext(ctx)
	sourceEnd := make(chan error, 1)
	go func() {
		defer close(records)
		sourceEnd <- src.read(ctx, from, func(r record) error {
			select {
			case records <- r:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	group.Go(func() error {
		defer close(batches)
		return collect(ctx, o, records, batches)
	})
	group.Go(func() error {
		for b := range batches {
			if err := p.settle(ctx, b); err != nil {
				return err
			}
		}
		return nil
	})
	// A source that fails does not end the other stages: what was read is stored, and the checkpoint moves.
	err = group.Wait()
	if err != nil && o.Source == "-" {
		return err // a read from standard input cannot be woken, so it is not waited for
	}
	if sourceErr := <-sourceEnd; err == nil {
		err = sourceErr
	}
	if err != nil {
		return err
	}
	return p.place.done()
}

// open prepares the source and finds the place to begin at.
func (p *pass) open() (source, position, error) {
	o := p.o
	d := decode{mapping: o.Mapping, format: o.Format, maxRecord: o.MaxRecord}
	path := o.Checkpoint
	if o.Source == "-" {
		path = "" // what is piped in next time may be something else
	}
	var err error
	if p.place, err = openCheckpoint(path, o); err != nil {
		return nil, position{}, err
	}
	if isHTTP(o.Source) {
		src, err := newHTTPSource(o.Source, o, d, func() { p.count.retried(1) })
		if err != nil {
			return nil, position{}, err
		}
		return src, p.place.start(""), nil
	}
	f := &fileSource{path: o.Source, stdin: o.Stdin, d: d, log: o.Logger}
	if o.Source == "-" {
		return f, position{}, nil
	}
	state, err := fileState(o.Source)
	if err != nil {
		return nil, position{}, fmt.Errorf("the source: %w", err)
	}
	return f, p.place.start(state), nil
}

// collect puts records into batches. A batch goes on when it is full, when its next record's id is in it already (so that the order of
// two records with one id is kept whatever is sent again), and when nothing came for a while.
func collect(ctx context.Context, o *Options, records <-chan record, batches chan<- *batch) error {
	b := newBatch()
	timer := time.NewTimer(o.FlushInterval)
	defer timer.Stop()
	flush := func() error {
		if b.records == 0 {
			return nil
		}
		select {
		case batches <- b:
			b = newBatch()
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for {
		select {
		case r, ok := <-records:
			if !ok {
				return flush()
			}
			full := b.records >= int64(o.BatchCount) || len(b.items) > 0 && len(b.body)+len(r.body)+len(r.id)+32 > o.BatchBytes
			if full || r.reject == "" && b.ids[r.id] {
				if err := flush(); err != nil {
					return err
				}
			}
			if b.records == 0 {
				timer.Reset(o.FlushInterval)
			}
			b.add(r)
		case <-timer.C:
			if err := flush(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// settle stores a batch, writes down what was rejected, and moves the checkpoint, in this order.
func (p *pass) settle(ctx context.Context, b *batch) error {
	p.count.read(b.records)
	if err := p.sender.send(ctx, b); err != nil {
		return err
	}
	for _, d := range b.rejected {
		p.count.rejected()
		if err := p.letters.add(deadLetter{ID: d.id, Type: d.reject, Fields: d.fields}, d.body); err != nil {
			return err
		}
	}
	if err := p.letters.flush(); err != nil {
		return err
	}
	if err := p.place.save(b.after, p.o.Clock.Now()); err != nil {
		return err
	}
	p.progress.step(p.count.summary())
	return nil
}
