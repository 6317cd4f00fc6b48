package ingest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// PagingMode is how an HTTP source is split into requests.
type PagingMode string

// The modes; config/ingest.yaml describes them.
const (
	PagingNone   PagingMode = "none"
	PagingPage   PagingMode = "page"
	PagingNext   PagingMode = "next"
	PagingCursor PagingMode = "cursor"
)

// Paging is how an HTTP source is split into requests. Zero fields have the defaults that config/ingest.yaml names.
type Paging struct {
	Mode        PagingMode
	Limit       *int // nil: the mode's default; 0 sends no limit
	PageParam   string
	LimitParam  string
	CursorParam string
	FirstPage   *int // nil: 1
	Items       string
	Next        string
	Cursor      string
	MaxPages    int
}

func (p Paging) withDefaults() Paging {
	str := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	if p.Mode == "" {
		p.Mode = PagingNone
	}
	str(&p.PageParam, "page")
	str(&p.LimitParam, "limit")
	str(&p.CursorParam, "cursor")
	str(&p.Items, "data")
	str(&p.Next, "next")
	str(&p.Cursor, "next_cursor")
	if p.Limit == nil {
		limit := 0
		if p.Mode == PagingPage {
			limit = 100
		}
		p.Limit = &limit
	}
	if p.FirstPage == nil {
		first := 1
		p.FirstPage = &first
	}
	if p.MaxPages <= 0 {
		p.MaxPages = 100_000
	}
	return p
}

// SourceAuth is how the provider knows us. Bearer wins over basic auth; both empty is none. It never goes
// to another host than the source's.
type SourceAuth struct {
	Bearer             string
	Username, Password string
}

// String keeps secrets out of formatted output.
func (SourceAuth) String() string { return "[redacted]" }

// GoString does the same for %#v.
func (SourceAuth) GoString() string { return "[redacted]" }

// LogValue does the same for log/slog.
func (SourceAuth) LogValue() slog.Value { return slog.StringValue("[redacted]") }

type httpSource struct {
	base    *url.URL // without user and password
	auth    SourceAuth
	client  *http.Client
	timeout time.Duration // for the header, and for each stretch of the body
	paging  Paging
	d       decode
	clock   Clock
	retry   Retry
	log     *slog.Logger
	retried func()
}

func newHTTPSource(source string, o *Options, d decode, retried func()) (*httpSource, error) {
	u, err := url.Parse(source)
	if err != nil || u.Host == "" {
		return nil, errors.New("the source's address cannot be parsed") // url.Error quotes it, and it may hold a password
	}
	s := &httpSource{auth: o.SourceAuth, timeout: o.SourceTimeout, paging: *o.Paging, d: d, clock: o.Clock, retry: o.Retry, log: o.Logger, retried: retried}
	if u.User != nil {
		if s.auth == (SourceAuth{}) {
			s.auth.Username = u.User.Username()
			s.auth.Password, _ = u.User.Password()
		}
		u.User = nil
	}
	u.Fragment = ""
	s.base = u
	s.client = &http.Client{
		Transport: o.SourceTransport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			switch {
			case len(via) >= 10:
				return &ownError{errors.New("the source redirects more than 10 times")}
			case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
				return &ownError{errors.New("the source redirects from https to http: not followed")}
			case !sameOrigin(req.URL, s.base):
				req.Header.Del("Authorization") // net/http keeps it for subdomains
			}
			return nil
		},
	}
	return s, nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host)
}

// pageResult is what a page says about the next one.
type pageResult struct {
	next   string // link or cursor; empty at the end
	ids    chain
	count  int64
	absent bool // 404
}

// read follows the pages. Three guards keep it from going round forever: a page that repeats the
// one before (the provider ignores the page parameter), a link or cursor that was followed already, and a limit on pages.
func (s *httpSource) read(ctx context.Context, from position, emit func(record) error) error {
	at := from
	if at == (position{}) && s.paging.Mode == PagingPage {
		at.Page = *s.paging.FirstPage
	}
	seen := map[[16]byte]bool{}
	var previous pageResult
	for pages := 1; ; pages++ {
		if pages > s.paging.MaxPages {
			return fmt.Errorf("more than %d pages: if that is right, raise source.paging.max_pages", s.paging.MaxPages)
		}
		res, err := s.page(ctx, at, emit)
		if err != nil && ctx.Err() != nil {
			return err // nothing the page is to blame for
		}
		if err != nil {
			return fmt.Errorf("page %d: %w", max(at.Page, pages), err)
		}
		switch s.paging.Mode {
		case PagingNone:
			return nil
		case PagingPage:
			// A page shorter than the limit is not the end: many providers cap the limit below what was asked.
			if res.count == 0 || res.absent {
				return nil
			}
			if previous.count == res.count && previous.ids == res.ids {
				return fmt.Errorf("page %d holds the same records as the page before: does the provider know the parameter %q (source.paging.page_param)", at.Page, s.paging.PageParam)
			}
			previous = res
			at = position{Page: at.Page + 1}
		default:
			if res.next == "" {
				return nil
			}
			var key [16]byte
			sum := sha256.Sum256([]byte(res.next))
			copy(key[:], sum[:])
			if seen[key] || res.next == at.Next {
				return fmt.Errorf("page %d: the %s to the next page was followed before: the provider's pages go round in a circle", max(at.Page, pages), map[PagingMode]string{PagingNext: "link", PagingCursor: "cursor"}[s.paging.Mode])
			}
			seen[key] = true
			at = position{Page: at.Page + 1, Next: res.next}
		}
	}
}

// page reads one page, again and again where that may help, and delivers each record once.
func (s *httpSource) page(ctx context.Context, at position, emit func(record) error) (pageResult, error) {
	skip := &skipper{want: at, at: at, emit: emit}
	retrier := newRetrier(s.clock, s.retry)
	reached := at.Records
	for {
		skip.restart()
		res, err := s.once(ctx, at, skip)
		if err == nil {
			err = skip.end()
		}
		if err == nil {
			res.ids, res.count = skip.at.IDs, skip.at.Records
			return res, nil
		}
		var again *transientError
		switch {
		case errors.Is(err, errChanged):
			s.log.Warn("the page changed since it was read before: reading it from its first record", "page", at.Page)
			skip.forget()
			again = &transientError{err: err}
		case !errors.As(err, &again):
			return pageResult{}, err
		}
		if skip.want.Records > reached {
			reached = skip.want.Records
			retrier.progress()
		}
		s.log.Info("reading the source failed", "page", at.Page, "reason", again.err.Error())
		if err := retrier.wait(ctx, again.after, again.err); err != nil {
			return pageResult{}, err
		}
		s.retried()
	}
}

// transientError is a failure that another try may cure.
type transientError struct {
	err   error
	after time.Duration // as the server asked
}

func (e *transientError) Error() string { return e.err.Error() }
func (e *transientError) Unwrap() error { return e.err }

var errSlow = errors.New("the source did not answer in time")

// once sends one request and reads the reply.
func (s *httpSource) once(ctx context.Context, at position, skip *skipper) (pageResult, error) {
	target, err := s.address(at)
	if err != nil {
		return pageResult{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return pageResult{}, errors.New("the source's address cannot be used")
	}
	req.Header.Set("Accept", "application/json, application/x-ndjson")
	req.Header.Set("Accept-Encoding", "gzip") // set by us, so it is decoded by us, also where the header is missing
	req.Header.Set("User-Agent", "esproxy-ingest")
	switch {
	case s.auth.Bearer != "":
		req.Header.Set("Authorization", "Bearer "+s.auth.Bearer)
	case s.auth.Username != "" || s.auth.Password != "":
		req.SetBasicAuth(s.auth.Username, s.auth.Password)
	}
	headers := time.AfterFunc(s.timeout, func() { cancel(errSlow) })
	res, err := s.client.Do(req)
	headers.Stop()
	if err != nil {
		return pageResult{}, s.failure(ctx, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return s.refused(res, at)
	}
	if e := res.Header.Get("Content-Encoding"); e != "" && e != "identity" && e != "gzip" && e != "x-gzip" {
		return pageResult{}, errors.New("the source answers in a content encoding other than gzip, which it was not asked for")
	}
	result, err := s.body(&idleReader{r: res.Body, timeout: s.timeout, cancel: cancel}, skip)
	if err != nil {
		return pageResult{}, s.failure(ctx, err)
	}
	switch s.paging.Mode {
	case PagingNext:
		if result.next == "" {
			result.next = nextLink(res.Header.Values("Link"))
		}
		if result.next != "" {
			// Relative links count from the address that answered, which a redirect may have changed.
			result.next, err = s.sameHost(res.Request.URL, result.next)
		}
	case PagingNone, PagingPage, PagingCursor:
	}
	return result, err
}

// body reads the records of one reply. Failures of emit come back marked, so that they are not taken for the source's.
func (s *httpSource) body(r io.Reader, skip *skipper) (pageResult, error) {
	fn := func(d document) error {
		if err := skip.next(d); err != nil {
			return &ownError{err}
		}
		return nil
	}
	if s.paging.Mode == PagingNone || s.d.format == FormatNDJSON {
		return pageResult{}, s.d.stream(r, fn)
	}
	br, err := plain(r)
	if err != nil {
		return pageResult{}, err
	}
	if _, err := firstChar(br); err == io.EOF {
		return pageResult{}, nil // an empty body is an empty page
	}
	var res pageResult
	wanted := map[string]*string{}
	if s.paging.Mode == PagingNext {
		wanted[s.paging.Next] = &res.next
	}
	if s.paging.Mode == PagingCursor {
		wanted[s.paging.Cursor] = &res.next
	}
	err = newPageReader(br, s.d, wanted, fn).page(s.paging.Items)
	return res, err
}

// ownError marks an error that did not come from the source.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }

// failure sorts an error of the connection or the body.
func (s *httpSource) failure(ctx context.Context, err error) error {
	var own *ownError
	if errors.As(err, &own) {
		return own.err
	}
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, errSlow) {
			return &transientError{err: errSlow}
		}
		return cause
	}
	var address *url.Error
	if errors.As(err, &address) {
		// url.Error quotes the whole address, whose query may hold a key.
		err = address.Err
		var certificate *tls.CertificateVerificationError
		var notTLS tls.RecordHeaderError
		if errors.As(err, &certificate) || errors.As(err, &notTLS) {
			return fmt.Errorf("the source cannot be trusted: %w", err)
		}
		return &transientError{err: fmt.Errorf("the source cannot be reached: %w", err)}
	}
	var connection *cutError
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &connection) {
		return &transientError{err: fmt.Errorf("the source's reply was cut: %w", err)}
	}
	return err
}

// refused turns a status into an error.
func (s *httpSource) refused(res *http.Response, at position) (pageResult, error) {
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10) // lets the connection be used again
	err := fmt.Errorf("the source answered %d", res.StatusCode)
	switch c := res.StatusCode; {
	case c == http.StatusNoContent:
		return pageResult{}, nil
	case c == http.StatusNotFound && s.paging.Mode == PagingPage && at.Page > *s.paging.FirstPage:
		return pageResult{absent: true}, nil // some providers answer so past the last page
	case c == http.StatusTooManyRequests || c == http.StatusRequestTimeout || c >= 500:
		return pageResult{}, &transientError{err: err, after: retryAfter(res.Header, s.clock.Now())}
	case c == http.StatusUnauthorized || c == http.StatusForbidden:
		return pageResult{}, fmt.Errorf("%w: check the credentials for the source", err)
	}
	return pageResult{}, err
}

// address is where a page is.
func (s *httpSource) address(at position) (*url.URL, error) {
	u := *s.base
	if s.paging.Mode == PagingNext && at.Next != "" {
		next, err := url.Parse(at.Next)
		if err != nil || !sameOrigin(next, s.base) {
			return nil, errors.New("the stored link to the next page is not an address of the source")
		}
		return next, nil
	}
	var set []string
	switch s.paging.Mode {
	case PagingPage:
		set = append(set, s.paging.PageParam, strconv.Itoa(at.Page))
	case PagingCursor:
		if at.Next != "" {
			set = append(set, s.paging.CursorParam, at.Next)
		}
	case PagingNone, PagingNext:
	}
	if *s.paging.Limit > 0 && (s.paging.Mode == PagingPage || s.paging.Mode == PagingCursor) {
		set = append(set, s.paging.LimitParam, strconv.Itoa(*s.paging.Limit))
	}
	if len(set) > 0 {
		q, err := url.ParseQuery(u.RawQuery)
		if err != nil {
			return nil, errors.New("the query of the source's address cannot be parsed")
		}
		for i := 0; i < len(set); i += 2 {
			q.Set(set[i], set[i+1])
		}
		u.RawQuery = q.Encode()
	}
	return &u, nil
}

// sameHost resolves a link and refuses one that leads away: the provider's credentials would go with
// it, and a record list must not be able to make this program ask other hosts.
func (s *httpSource) sameHost(base *url.URL, link string) (string, error) {
	u, err := base.Parse(link)
	if err != nil {
		return "", errors.New("the link to the next page cannot be parsed")
	}
	if !sameOrigin(u, s.base) {
		return "", errors.New("the link to the next page leads to another host or scheme than the source's: not followed")
	}
	u.User, u.Fragment = nil, ""
	return u.String(), nil
}

// nextLink finds rel="next" in Link headers (RFC 8288). "" is none.
func nextLink(headers []string) string {
	for _, h := range headers {
		for h != "" {
			open := strings.IndexByte(h, '<')
			end := strings.IndexByte(h, '>')
			if open < 0 || end < open {
				break
			}
			link, params := h[open+1:end], h[end+1:]
			h = ""
			if i := strings.Index(params, ",<"); i >= 0 {
				params, h = params[:i], params[i+1:]
			} else if i := strings.Index(params, ", <"); i >= 0 {
				params, h = params[:i], params[i+1:]
			}
			for _, p := range strings.Split(params, ";") {
				name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
				if strings.EqualFold(strings.TrimSpace(name), "rel") {
					for _, rel := range strings.Fields(strings.Trim(strings.TrimSpace(value), `"`)) {
						if strings.EqualFold(rel, "next") {
							return link
						}
					}
				}
			}
		}
	}
	return ""
}

// idleReader cancels a request whose body stands still. Only the time inside Read counts, so a slow cluster
// behind us is not taken for a slow provider.
type idleReader struct {
	r       io.Reader
	timeout time.Duration
	cancel  context.CancelCauseFunc
}

func (i *idleReader) Read(p []byte) (int, error) {
	t := time.AfterFunc(i.timeout, func() { i.cancel(errSlow) })
	defer t.Stop()
	n, err := i.r.Read(p)
	if err != nil && err != io.EOF {
		err = &cutError{err}
	}
	return n, err
}

// cutError marks an error of the connection, so that readers above (gzip, JSON) need not be asked whose it is.
type cutError struct{ err error }

func (e *cutError) Error() string { return e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }
