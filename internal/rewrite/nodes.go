package rewrite

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/esproxy/esproxy/internal/policy"
)

// Clients that sniff learn from the cluster where its nodes listen, and then talk to them past the proxy. So the HTTP
// addresses in those replies become the proxy's own, for every caller. They stand in two places, seen on Elasticsearch 8.19 and
// 9.5 and on OpenSearch 3.8:
//
//   - `_nodes`, nodes.info with any metrics: nodes.<id>.http.publish_address, and bound_address beside it. All official
//     clients connect to the first; the Java client also takes the second for names of the node.
//   - `_cat/nodes`: the column http_address, also named http, which is shown when h asks for it.
//
// All nodes stay in the reply, with their ids, roles and versions: clients either merge equal addresses (Go, Python, Java, .NET) or
// keep one connection for each node (JavaScript); all of them then reach the proxy only.
//
// What stays as it is, since no client makes an HTTP connection from it: transport_address, host and ip of nodes.info and
// nodes.stats, of `_cluster/state`, `_search_shards`, `_tasks` and of the `_cat` tables hold the transport port or none;
// nodes.stats has no publish address (its http.clients tell the ends of connections that are open); `_nodes/usage` and
// `_cluster/stats` have no address at all; `_remote/info` has transport addresses of other clusters; settings in nodes.info
// and `_cluster/settings` are what an operator wrote, such as http.publish_host.

// The verdicts on replies that hold addresses of nodes.
const (
	replyNodes    = "nodes"
	replyCatNodes = "cat_nodes"
)

// nodeReply carries a request whose reply tells where nodes listen.
type nodeReply struct {
	eng     *Engine
	request Transform // of the body, if there is one; its reply passes
	address string    // what stands for every address, "host:port"
	cat     bool      // the reply is that of `_cat/nodes`
	header  bool      // the client of `_cat/nodes` asked for the table's header line
}

// addresses makes p put the proxy's address into the reply, unless the reply holds none.
func (r *request) addresses(p *Plan) error {
	t := &nodeReply{eng: r.Engine, request: p.Transform, address: r.PublishAddress, cat: r.reply == replyCatNodes}
	if t.address == "" {
		t.address = r.call.Authority
	}
	if t.cat {
		params, fault := parseQuery(r.call.Query)
		if fault != nil {
			return fault
		}
		if columns, _ := lookParam(params, "h"); !showsAddress(columns) {
			return nil
		}
		if help, ok := lookParam(params, "help"); ok && help != "false" {
			return nil
		}
		v, ok := lookParam(params, "v")
		t.header = ok && v != "false"
	}
	if t.address == "" {
		return refuse(400, "esproxy_bad_request", "the reply would tell the addresses of nodes, and the Host header is no host and port that could stand in their place; send one, or set ESPROXY_PUBLISH_ADDRESS")
	}
	p.Transform = t
	return nil
}

// showsAddress reports whether the parameter h of `_cat/nodes` names the column of HTTP addresses
// (RestTable.buildDisplayHeaders).
func showsAddress(columns string) bool {
	for column := range strings.SplitSeq(columns, ",") {
		column = strings.TrimFunc(column, blankRune)
		if policy.Glob(column, "http_address") || policy.Glob(column, "http") {
			return true
		}
	}
	return false
}

// isAddressColumn reports whether a column of `_cat/nodes` holds HTTP addresses, by the name it is shown under.
func isAddressColumn(name []byte) bool {
	return string(name) == "http" || string(name) == "http_address"
}

// Request implements Transform.
func (t *nodeReply) Request(ctx context.Context, plan *Plan, body io.Reader, up io.Writer) (bool, error) {
	if t.request == nil {
		return false, nil
	}
	return t.request.Request(ctx, plan, body, up)
}

// Close implements Transform.
func (t *nodeReply) Close() {
	if t.request != nil {
		t.request.Close()
	}
}

// Reply implements Transform.
func (t *nodeReply) Reply(ctx context.Context, head ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
	if head.Status >= 300 {
		return nil, false, nil
	}
	kind, _, _ := strings.Cut(head.ContentType, ";")
	switch kind = strings.ToLower(strings.TrimSpace(kind)); {
	case kind == "application/json" || kind == "application/vnd.elasticsearch+json":
		return func(in io.Reader, out io.Writer) error { return t.json(ctx, in, out) }, false, nil
	case kind == "text/plain" && t.cat:
		return func(in io.Reader, out io.Writer) error { return t.text(ctx, in, out) }, false, nil
	case t.cat:
		return nil, false, notJSON()
	}
	return func(in io.Reader, out io.Writer) error { return t.other(ctx, in, out) }, false, nil
}

func notJSON() *Fault {
	return refuse(406, "esproxy_not_acceptable", "the reply tells the addresses of nodes, which become the proxy's own in JSON only; leave out [format] and [Accept], or ask for JSON")
}

// other copies a reply of nodes.info in YAML, CBOR or SMILE that tells no addresses. The names of its members, ASCII words,
// stand in all three as they are, at least where each is first used.
func (t *nodeReply) other(ctx context.Context, in io.Reader, out io.Writer) error {
	body, done, err := readAll(ctx, in, t.eng.Budget, t.eng.Limits.MaxHit)
	if err != nil {
		return err
	}
	defer done()
	has := func(word string) bool { return bytes.Contains(body, []byte(word)) }
	if has("http") && (has("publish_address") || has("bound_address")) { // transport has the latter two as well
		return notJSON()
	}
	_, err = out.Write(body)
	return err
}

func unreadable(cause error) *Fault {
	return &Fault{Status: 502, Type: "esproxy_unreadable_reply", Reason: "the reply of Elasticsearch tells the addresses of nodes and could not be read, so they could not become the proxy's own; it is not handed on", Cause: cause}
}

// json copies a reply in JSON with the proxy's address in place of the nodes' own.
func (t *nodeReply) json(ctx context.Context, in io.Reader, out io.Writer) error {
	back := &backWriter{w: out}
	s := newStream(ctx, in, back, t.eng.Budget)
	defer s.close()
	if s.acquire(maxHeld) == nil { // without the memory errors come later, but they do come
		back.limit = maxHeld
	}
	address := appendJSONString(nil, t.address)
	list := slices.Concat([]byte{'['}, address, []byte{']'})
	replace := func(by []byte) error {
		// Whatever stands there goes. What is too large to be an address is no reply of nodes.
		value, ok, err := s.capture(windowSize)
		if err != nil {
			return err
		}
		if !ok {
			return badSyntax(0, "an address is too long")
		}
		if string(value) == "null" || string(value) == `"-"` { // the node told none
			return s.pass(len(value))
		}
		s.drop(len(value))
		return s.emit(by)
	}
	within := func(name string, f func() error) error {
		return s.object(func(got []byte) error {
			if string(got) == name {
				return f()
			}
			return s.copyValue()
		})
	}
	http := func() error {
		return s.object(func(name []byte) error {
			switch string(name) {
			case "publish_address":
				return replace(address)
			case "bound_address":
				return replace(list)
			}
			return s.copyValue()
		})
	}
	node := func([]byte) error { return within("http", http) }
	read := func() error { return within("nodes", func() error { return s.object(node) }) }
	if t.cat {
		row := func(name []byte) error {
			if !isAddressColumn(name) {
				return s.copyValue()
			}
			return replace(address)
		}
		read = func() error { return s.array(func() error { return s.object(row) }) }
	}
	err := read()
	if err == nil {
		err = s.finish()
	}
	if isNotStrict(err) {
		return unreadable(err)
	}
	if err == nil {
		err = s.flush()
	}
	if err == nil {
		err = back.flush()
	}
	return err
}

// text copies the table of `_cat/nodes` with the proxy's address in place of the nodes' own. Cells are padded with blanks to
// the width of their column, counted as Java counts a string's length (RestTable.pad).
func (t *nodeReply) text(ctx context.Context, in io.Reader, out io.Writer) error {
	body, done, err := readAll(ctx, in, t.eng.Budget, t.eng.Limits.MaxHit)
	if err != nil {
		return err
	}
	defer done()
	if !utf8.Valid(body) {
		return unreadable(errors.New("a table that is not UTF-8"))
	}
	lines := bytes.Split(body, []byte{'\n'})
	columns := t.addressColumns(lines)
	for _, c := range slices.Backward(columns) { // from the right, so that places stay
		if err := t.column(lines, c); err != nil {
			return unreadable(err)
		}
	}
	_, err = out.Write(bytes.Join(lines, []byte{'\n'}))
	return err
}

// catColumn is a column of a table in text: where it begins, in UTF-16 units, and how many words stand before it there.
type catColumn struct{ place, words int }

// addressColumns finds the columns of addresses by their names, or without a header line by the first line that has an
// address. A node that is called like one counts as one there.
func (t *nodeReply) addressColumns(lines [][]byte) (columns []catColumn) {
	is := isAddress
	if t.header {
		is, lines = isAddressColumn, lines[:1]
	}
	for _, line := range lines {
		n := 0
		for from, to := nextWord(line, 0); from < to; from, to = nextWord(line, to) {
			if is(line[from:to]) {
				columns = append(columns, catColumn{len(utf16.Encode([]rune(string(line[:from])))), n})
			}
			n++
		}
		if len(columns) > 0 {
			break
		}
	}
	return columns
}

// nextWord finds the word that follows at i, an empty one at the end.
func nextWord(line []byte, i int) (from, to int) {
	for i < len(line) && line[i] == ' ' {
		i++
	}
	end := bytes.IndexByte(line[i:], ' ')
	if end < 0 {
		end = len(line) - i
	}
	return i, i + end
}

// column replaces the cells of a column, and gives it the width that it needs now.
func (t *nodeReply) column(lines [][]byte, c catColumn) error {
	starts, ends, was := t.cellsAt(lines, c.place)
	if was == 0 {
		starts, ends, was = t.cellsInOrder(lines, c.words)
	}
	if was == 0 {
		return errors.New("a table whose column of addresses is not where its name is")
	}
	is := 0
	for i, line := range lines {
		if cell := line[starts[i]:ends[i]]; isAddress(cell) {
			is = max(is, len(t.address))
		} else {
			is = max(is, len(cell))
		}
	}
	for i, line := range lines {
		cell := line[starts[i]:ends[i]]
		if isAddress(cell) {
			cell = []byte(t.address)
		}
		rest := line[min(len(line), starts[i]+was):]
		next := slices.Concat(line[:starts[i]], cell)
		if len(rest) > 0 {
			next = append(next, bytes.Repeat([]byte{' '}, is-len(cell))...)
		}
		lines[i] = append(next, rest...)
	}
	return nil
}

// isAddress reports whether a cell is an HTTP address as `_cat/nodes` shows it (NetworkAddress.format).
func isAddress(cell []byte) bool {
	_, err := netip.ParseAddrPort(string(cell))
	return err == nil
}

// cellsAt finds the cells of a column, and its width, by the place where it begins. Below the name stands an address; or nothing or
// "-" for a node that told none, and then the whole line has none. The width is 0 when the cells are not there.
func (t *nodeReply) cellsAt(lines [][]byte, place int) (starts, ends []int, width int) {
	for i, line := range lines {
		from := offsetOf(line, place)
		to := from
		for to < len(line) && line[to] != ' ' {
			to++
		}
		if t.isRow(i) && (to > from && from > 0 && line[from-1] != ' ' || !isCell(line, line[from:to])) {
			return nil, nil, 0
		}
		starts, ends = append(starts, from), append(ends, to)
	}
	return starts, ends, columnWidth(lines, starts, ends)
}

// columnWidth gives the width of a column, all ASCII, with blanks behind its cells; 0 if something else stands there.
func columnWidth(lines [][]byte, starts, ends []int) (width int) {
	for i := range lines {
		width = max(width, ends[i]-starts[i])
	}
	for i, line := range lines {
		if len(bytes.TrimLeft(line[ends[i]:min(len(line), starts[i]+width)], " ")) > 0 {
			return 0
		}
	}
	return width
}

// cellsInOrder finds the cells of the n-th column where each cell of the table is one word. It is for tables that don't stand
// straight: the server pads cells that are more than 127 shorter than their column wrongly, such as the name of the
// column of names beside a long name (RestTable.pad counts in a byte).
func (t *nodeReply) cellsInOrder(lines [][]byte, n int) (starts, ends []int, width int) {
	words := len(bytes.Fields(lines[0]))
	for i, line := range lines {
		from, to := nextWord(line, 0)
		for range n {
			from, to = nextWord(line, to)
		}
		last := i == len(lines)-1 && len(line) == 0 // after the last newline
		if t.isRow(i) && !last && (len(bytes.Fields(line)) != words || !isCell(line, line[from:to])) {
			return nil, nil, 0
		}
		starts, ends = append(starts, from), append(ends, to)
	}
	return starts, ends, columnWidth(lines, starts, ends)
}

// isRow reports whether the i-th line of a table tells about a node.
func (t *nodeReply) isRow(i int) bool { return i > 0 || !t.header }

// isCell reports whether a part of a line can be its cell in the column of addresses.
func isCell(line, cell []byte) bool {
	if len(cell) > 0 && string(cell) != "-" {
		return isAddress(cell)
	}
	return !slices.ContainsFunc(bytes.Fields(line), isAddress)
}

// offsetOf gives where in line the n-th UTF-16 unit begins; the end of a shorter line.
func offsetOf(line []byte, n int) int {
	i := 0
	for i < len(line) && n > 0 {
		r, size := utf8.DecodeRune(line[i:])
		if n--; r > 0xFFFF {
			n--
		}
		i += size
	}
	return i
}
