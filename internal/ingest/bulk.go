package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v8/esapi"
)

// item is one document of a batch.
type item struct {
	id         string
	start, end int // its two lines in the batch's body
	docStart   int // where the second line begins
}

// batch is what one bulk request carries, and the rejected records that lay between its documents.
type batch struct {
	body     []byte
	items    []item
	ids      map[string]bool
	rejected []document
	after    position // the place in the source after the last record
	records  int64
}

func newBatch() *batch { return &batch{ids: map[string]bool{}} }

// add appends a record. The caller has seen to it that its id is not in the batch yet.
func (b *batch) add(r record) {
	b.after = r.after
	b.records++
	if r.reject != "" {
		b.rejected = append(b.rejected, r.document)
		return
	}
	b.ids[r.id] = true
	it := item{id: r.id, start: len(b.body)}
	b.body = append(b.body, actionLine(r.id)...)
	it.docStart = len(b.body)
	b.body = append(append(b.body, r.body...), '\n')
	it.end = len(b.body)
	b.items = append(b.items, it)
}

func (b *batch) doc(it item) []byte { return b.body[it.docStart : it.end-1] }

// actionLine is the line before a document. The action is "index": it replaces what is stored under the
// id, so sending twice leaves one document. "create" would answer 409 on every second run, and "update" would
// keep members that the provider dropped.
func actionLine(id string) []byte {
	var line struct {
		Index struct {
			ID string `json:"_id"`
		} `json:"index"`
	}
	line.Index.ID = id
	b, err := json.Marshal(line)
	if err != nil {
		panic("ingest: an action line that has no JSON form") // a struct with one string
	}
	return append(b, '\n')
}

// sender sends batches through the proxy and settles every document in them.
type sender struct {
	transport *elastictransport.Client
	index     string
	headers   func() (http.Header, error)
	timeout   time.Duration
	clock     Clock
	retry     Retry
	log       *slog.Logger
	count     *counter
	reject    func(it item, doc []byte, status int, kind string) error
}

func newSender(o *Options, count *counter) (*sender, error) {
	u, err := url.Parse(o.ProxyURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the proxy's address must begin with http:// or https://")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	t, err := elastictransport.NewClient(
		elastictransport.WithURLs(u),
		elastictransport.WithTransport(o.Transport),
		elastictransport.WithDisableRetry(), // it would not tell us, and knows no Retry-After
		elastictransport.WithUserAgent("esproxy-ingest"),
	)
	if err != nil {
		return nil, fmt.Errorf("the connection to the proxy: %w", err)
	}
	return &sender{transport: t, index: o.Index, headers: o.Headers, timeout: o.BulkTimeout, clock: o.Clock, retry: o.Retry, log: o.Logger, count: count}, nil
}

// send settles all items of a batch: stored, or rejected and handed to s.reject. It returns an error when that
// is not possible now; then nothing is known about the items, and the checkpoint stays before the batch.
func (s *sender) send(ctx context.Context, b *batch) error {
	return s.settle(ctx, b, b.items)
}

func (s *sender) settle(ctx context.Context, b *batch, items []item) error {
	retrier := newRetrier(s.clock, s.retry)
	for len(items) > 0 {
		results, err := s.once(ctx, b, items)
		if err == nil {
			var left []item
			if left, err = s.sort(b, items, results); err != nil {
				return err
			}
			if len(left) == 0 {
				return nil
			}
			if len(left) < len(items) {
				retrier.progress()
			}
			s.log.Debug("documents were answered 429 or 503", "documents", len(left))
			items = left
			if err := retrier.wait(ctx, 0, fmt.Errorf("%d documents are answered 429 or 503", len(left))); err != nil {
				return err
			}
			s.count.retried(len(left))
			continue
		}
		var status *statusError
		if errors.As(err, &status) && status.code == http.StatusRequestEntityTooLarge {
			return s.split(ctx, b, items, status)
		}
		var again *transientError
		if !errors.As(err, &again) {
			return err
		}
		s.log.Info("a bulk request failed", "documents", len(items), "reason", again.err.Error())
		if err := retrier.wait(ctx, again.after, again.err); err != nil {
			return err
		}
		s.count.retried(len(items))
	}
	return nil
}

// split halves a batch that is too large for the proxy or the cluster. A single document that is too large is rejected.
func (s *sender) split(ctx context.Context, b *batch, items []item, status *statusError) error {
	if len(items) == 1 {
		return s.reject(items[0], b.doc(items[0]), status.code, status.kind)
	}
	s.log.Info("a bulk request was too large, sending it in halves", "documents", len(items))
	half := len(items) / 2
	if err := s.settle(ctx, b, items[:half]); err != nil {
		return err
	}
	return s.settle(ctx, b, items[half:])
}

// sort counts stored documents, hands on rejected ones and returns those to send again.
func (s *sender) sort(b *batch, items []item, results []itemResult) ([]item, error) {
	var left []item
	for i, r := range results {
		switch {
		case r.Status == http.StatusTooManyRequests || r.Status == http.StatusServiceUnavailable:
			left = append(left, items[i])
		case r.Status == http.StatusCreated || r.Status == http.StatusOK:
			s.count.stored(r.Status == http.StatusCreated)
		default:
			if err := s.reject(items[i], b.doc(items[i]), r.Status, safeType(r.Error.Type)); err != nil {
				return nil, err
			}
		}
	}
	return left, nil
}

// itemResult is what is read of an item of a bulk reply. The error's reason is left out on purpose: it quotes values.
type itemResult struct {
	ID     *string `json:"_id"`
	Status int     `json:"status"`
	Error  struct {
		Type string `json:"type"`
	} `json:"error"`
}

// UnmarshalJSON also takes an error that is a string, which some servers in front of a cluster send.
func (r *itemResult) UnmarshalJSON(data []byte) error {
	var v struct {
		ID     *string         `json:"_id"`
		Status int             `json:"status"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	r.ID, r.Status = v.ID, v.Status
	if len(v.Error) > 0 && v.Error[0] == '{' {
		return json.Unmarshal(v.Error, &r.Error)
	}
	return nil
}

// statusError is a bulk request that was refused as a whole.
type statusError struct {
	code int
	kind string
}

func (e *statusError) Error() string {
	hint := ""
	switch e.code {
	case http.StatusUnauthorized, http.StatusForbidden:
		hint = ": check the credentials for Elasticsearch and the proxy"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		hint = ": is this the address of the proxy"
	}
	if e.kind == "" {
		return fmt.Sprintf("the bulk request was answered %d%s", e.code, hint)
	}
	return fmt.Sprintf("the bulk request was answered %d %s%s", e.code, e.kind, hint)
}

// maxReply bounds a bulk reply, in bytes for each item; an error's reason is the only long thing in it.
const maxReply = 64 << 10

// once sends one request with the items given and returns one result for each.
func (s *sender) once(ctx context.Context, b *batch, items []item) ([]itemResult, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, errNoReply)
	defer cancel()
	body := b.body
	if len(items) != len(b.items) {
		body = nil
		for _, it := range items {
			body = append(body, b.body[it.start:it.end]...)
		}
	}
	header := http.Header{}
	if s.headers != nil {
		h, err := s.headers()
		if err != nil {
			return nil, fmt.Errorf("headers for the proxy: %w", err)
		}
		header = h.Clone()
		if header == nil {
			header = http.Header{}
		}
	}
	header.Set("Content-Type", "application/x-ndjson")
	header.Set("Accept", "application/json")
	s.count.sent(len(body))
	res, err := esapi.BulkRequest{Index: s.index, Body: bytes.NewReader(body), Header: header}.Do(ctx, s.transport)
	if err != nil {
		return nil, bulkFailure(ctx, err)
	}
	defer func() { _ = res.Body.Close() }()
	reply := io.LimitReader(res.Body, maxReply*int64(len(items)+1))
	if res.StatusCode != http.StatusOK {
		refused := &statusError{code: res.StatusCode, kind: replyType(reply)}
		switch res.StatusCode {
		case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return nil, &transientError{err: refused, after: retryAfter(res.Header, s.clock.Now())}
		}
		return nil, refused
	}
	results, err := decodeReply(reply, items)
	if err != nil {
		if ctx.Err() != nil {
			return nil, bulkFailure(ctx, err)
		}
		// What was stored is unknown, and sending again is harmless.
		return nil, &transientError{err: err}
	}
	return results, nil
}

var errNoReply = errors.New("the bulk request was not answered in time")

func bulkFailure(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, errNoReply) {
			return &transientError{err: errNoReply}
		}
		return cause
	}
	var address *url.Error
	if errors.As(err, &address) {
		err = address.Err
	}
	return &transientError{err: fmt.Errorf("the proxy cannot be reached: %w", err)}
}

// decodeReply reads a bulk reply and checks that it speaks of the items that were sent.
func decodeReply(r io.Reader, items []item) ([]itemResult, error) {
	var reply struct {
		Items []map[string]itemResult `json:"items"`
	}
	if err := json.NewDecoder(r).Decode(&reply); err != nil {
		return nil, errors.New("the bulk reply was cut or is not JSON") // the error's text could quote it
	}
	if len(reply.Items) != len(items) {
		return nil, fmt.Errorf("the bulk reply has %d items for %d documents", len(reply.Items), len(items))
	}
	results := make([]itemResult, len(items))
	for i, it := range reply.Items {
		res, ok := it["index"]
		if !ok || len(it) != 1 || res.Status == 0 || res.ID != nil && *res.ID != items[i].id {
			return nil, fmt.Errorf("item %d of the bulk reply does not belong to the document sent at that place", i)
		}
		results[i] = res
	}
	return results, nil
}

// replyType returns the error type of an error reply, or "".
func replyType(r io.Reader) string {
	var reply struct {
		Error struct {
			Type string `json:"type"`
		} `json:"error"`
	}
	if json.NewDecoder(r).Decode(&reply) != nil || reply.Error.Type == "" {
		return ""
	}
	return safeType(reply.Error.Type)
}

var plainType = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z][a-z0-9_]{0,99}$`)
})

// safeType lets an error type through that looks like one. Types are names from Elasticsearch's source, but what comes over
// a wire can be anything.
func safeType(kind string) string {
	if !plainType().MatchString(kind) {
		return "unknown"
	}
	return kind
}
