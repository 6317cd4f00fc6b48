package ingest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"
)

// Options describes a run. Source, Index and ProxyURL are needed; every other zero field has a default.
type Options struct {
	// Source is where records come from: an http or https address, a file path, or "-" for Stdin.
	// User and password in an address are taken as basic auth.
	Source string
	// Stdin is read for the source "-"; nil is os.Stdin.
	Stdin io.Reader
	// SourceAuth is how the provider knows us.
	SourceAuth SourceAuth
	// SourceTransport carries requests to the provider; nil is one like http.DefaultTransport.
	SourceTransport http.RoundTripper
	// SourceTimeout bounds the wait for a reply's header and for each stretch of its body; default 30 s.
	SourceTimeout time.Duration
	// Paging and Format, if set, win over the mapping's. Paging wins as a whole: to change
	// one field, start from a copy of Mapping.Paging.
	Paging *Paging
	Format Format

	// Index is the name of the index or alias that documents go to.
	Index string
	// Mapping says how records become documents; nil is DefaultMapping().
	Mapping *Mapping

	// ProxyURL is the address of the proxy (or of a cluster, where nothing is protected).
	ProxyURL string
	// Transport carries bulk requests; nil is one like http.DefaultTransport.
	Transport http.RoundTripper
	// Headers, if set, returns the headers of the next bulk request (credentials). It is asked every time, so tokens may change.
	Headers func() (http.Header, error)
	// BulkTimeout bounds one bulk request; default 2 min.
	BulkTimeout time.Duration
	// BatchBytes and BatchCount bound a bulk request: it is sent when one of them is reached; defaults 4 MiB and 1000.
	// A single larger record still goes, alone.
	BatchBytes, BatchCount int
	// FlushInterval is how long a batch waits for more records; default 1 s.
	FlushInterval time.Duration
	// MaxRecord bounds one record in bytes; default 16 MiB.
	MaxRecord int64
	// Retry bounds the repetition of failing requests, to the provider and to the proxy alike.
	Retry Retry

	// Checkpoint is the path of the checkpoint file; empty keeps none. Standard input is never resumed.
	Checkpoint string
	// DeadLetter is the path of the file that rejected records are appended to; empty only counts them.
	DeadLetter string
	// Sealer seals records for the dead-letter file; nil keeps records out of it.
	Sealer DeadLetterSealer

	// Every, if > 0, reads the source again and again, waiting so long between the end of a pass and the next.
	Every time.Duration

	// Progress is where progress and summary go; nil discards them. IsTerminal chooses a bar.
	Progress   io.Writer
	IsTerminal bool
	// Total is the number of records expected, for the bar; 0 is unknown.
	Total int64
	// Clock is the time; nil is the system's.
	Clock Clock
	// Logger gets retries, rejections and refusals, never values of records; nil discards them.
	Logger *slog.Logger
}

// ErrRejected is the error of a run that went through but could not store every record.
var ErrRejected = errors.New("records were rejected")

func (o Options) withDefaults() (Options, error) {
	if o.Source == "" {
		return o, errors.New("no source: give an address, a file or - for standard input")
	}
	if o.Source == "-" && o.Every > 0 {
		return o, errors.New("standard input can be read only once: it cannot be polled")
	}
	if err := checkIndex(o.Index); err != nil {
		return o, err
	}
	if o.Mapping == nil {
		o.Mapping = DefaultMapping()
	}
	if o.Mapping.ID == "" {
		return o, errors.New("the mapping names no id")
	}
	if o.Mapping.DateOutput.kind != layoutPattern && len(o.Mapping.Dates) > 0 {
		return o, errors.New("the mapping's output layout for dates is not a pattern")
	}
	paging := o.Mapping.Paging
	if o.Paging != nil {
		paging = *o.Paging
	}
	paging = paging.withDefaults()
	switch paging.Mode {
	case PagingNone, PagingPage, PagingNext, PagingCursor:
	default:
		return o, errors.New("the paging mode must be none, page, next or cursor")
	}
	o.Paging = &paging
	if o.Format == "" {
		o.Format = o.Mapping.Format
	}
	switch o.Format {
	case "":
		o.Format = FormatAuto
	case FormatAuto, FormatArray, FormatNDJSON:
	default:
		return o, errors.New("the format must be auto, array or ndjson")
	}
	if o.Format == FormatNDJSON && (paging.Mode == PagingCursor) {
		return o, errors.New("NDJSON pages have no place for a cursor: use another paging mode")
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&o.SourceTimeout, 30 * time.Second}, {&o.BulkTimeout, 2 * time.Minute}, {&o.FlushInterval, time.Second}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = 4 << 20
	}
	if o.BatchCount <= 0 {
		o.BatchCount = 1000
	}
	if o.MaxRecord <= 0 {
		o.MaxRecord = 16 << 20
	}
	if o.Stdin == nil {
		o.Stdin = os.Stdin
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Retry = o.Retry.withDefaults()
	return o, nil
}

// ownTransport fills in a missing transport and returns what closes its idle connections.
func ownTransport(rt *http.RoundTripper) func() {
	if *rt != nil {
		return func() {}
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second}
	*rt = t
	return t.CloseIdleConnections
}

// fingerprint stands for everything but source and index that decides what a place in the source means.
func (o *Options) fingerprint() string {
	m := o.Mapping
	dates := map[string]string{}
	for name, layouts := range m.Dates {
		dates[name] = fmt.Sprint(layouts)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %q %q %q %q %v %q %s %+v %d %d", m.fingerprint, m.ID, m.Rename, dates, m.DateOutput, m.Zone, m.Constants,
		o.Format, [...]any{o.Paging.Mode, o.Paging.PageParam, o.Paging.LimitParam, o.Paging.CursorParam, o.Paging.Items, o.Paging.Next, o.Paging.Cursor},
		*o.Paging.Limit, *o.Paging.FirstPage))
	return hex.EncodeToString(sum[:8])
}

// checkIndex refuses names that Elasticsearch refuses (MetadataCreateIndexService.validateIndexOrAliasName) and that would
// change the path of the bulk request.
func checkIndex(name string) error {
	if name == "" {
		return errors.New("no index: name the one that documents go to")
	}
	if name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name[:1], "-_+") ||
		strings.ContainsAny(name, "\\/*?\"<>| ,#:%&;\t\r\n") || strings.ToLower(name) != name {
		return fmt.Errorf("%q is no name of an index: lower case, without blanks and \\ / * ? \" < > | , # : %% & ;, not beginning with - _ +", name)
	}
	return nil
}

// Run reads the source and stores its records, once or, with Every, until ctx ends. It returns what was done
// and an error when that is not everything:
//
//   - ErrRejected (errors.Is): the source was read to its end, but records were rejected;
//   - the context's error: the run was interrupted. With a checkpoint the next run goes on from there.
//     Ending ctx while a polling run waits is its normal end and no error;
//   - anything else: the source or the proxy failed for good, or the options are wrong.
//
// With Every, a pass that fails is logged and counted, and the next one is tried at its time. Run may be called concurrently, with
// different checkpoint and dead-letter files.
func Run(ctx context.Context, options Options) (Summary, error) {
	o, err := options.withDefaults()
	if err != nil {
		return Summary{}, err
	}
	defer ownTransport(&o.SourceTransport)()
	defer ownTransport(&o.Transport)()
	var total Summary
	for {
		s, err := runPass(ctx, &o)
		total.add(s)
		if o.Every <= 0 {
			return total, verdict(total, err)
		}
		if ctx.Err() != nil && err != nil {
			return total, verdict(total, err)
		}
		if err != nil {
			total.Failed++
			o.Logger.Error("reading the source failed, it will be tried again", "reason", err.Error(), "wait", o.Every.String())
		}
		if sleep(ctx, o.Clock, o.Every) != nil {
			if total.Failed > 0 {
				return total, verdict(total, fmt.Errorf("%d of %d passes failed", total.Failed, total.Passes))
			}
			return total, verdict(total, nil)
		}
	}
}

func verdict(s Summary, err error) error {
	if err == nil && s.Rejected > 0 {
		return fmt.Errorf("%d of %d %w", s.Rejected, s.Read, ErrRejected)
	}
	return err
}
