package test

import (
	"bufio"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestCases runs the files in cases/. A file is a txtar archive, headed by what it is about; a line "needs: real" there means that
// the embedded node cannot carry it, "needs: opensearch" that the case runs against an OpenSearch alone. A section policy.yaml stands for the usual policy, env for further environment. Then
// sections NAME.req and NAME.want follow each other.
//
// A request is a request line, headers, an empty line and the body; $P is the prefix of all index names. Lines
// before the request line that begin with @ say how it is sent: "@grant full" with a token, "@direct" around the
// proxy, "@crlf" with \r\n for each newline of the body, "@unescape" with Go escapes (\xNN) in the body resolved.
//
// What is wanted is a list of checks, one a line:
//
//	status 201
//	header Name: value
//	body is TEXT            the whole body
//	body has TEXT
//	body lacks TEXT
//	body matches REGEXP
//	json PATH = RAW JSON    gjson path; "json PATH =" for something that is not there
//	upstream lacks TEXT     in everything the proxy sent for this request
//	upstream has TEXT
//	upstream none           the proxy sent nothing but questions of its own (GET, _mget, _has_privileges)
func TestCases(t *testing.T) {
	files, err := filepath.Glob("cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			runCase(t, file)
		})
	}
}

func runCase(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ar := txtar.Parse(data)
	var c config
	switch comment := string(ar.Comment); {
	case strings.Contains(comment, "needs: real"):
		needReal(t)
	case strings.Contains(comment, "needs: opensearch"):
		c.server = needOpenSearch(t)
	}
	var steps []txtar.File
	for _, f := range ar.Files {
		switch f.Name {
		case "policy.yaml":
			c.policy = string(f.Data)
		case "env":
			c.env = strings.Fields(string(f.Data))
		default:
			steps = append(steps, f)
		}
	}
	s := start(t, c)
	for i := 0; i < len(steps); i++ {
		name, ok := strings.CutSuffix(steps[i].Name, ".req")
		if !ok || i+1 == len(steps) || steps[i+1].Name != name+".want" {
			t.Fatalf("section %s: want NAME.req followed by NAME.want", steps[i].Name)
		}
		from := s.rec.count()
		a := s.send(parseRequest(t, s, string(steps[i].Data)))
		if a.err != nil {
			a.body += "\n(error: " + a.err.Error() + ")"
		}
		i++
		checked := 0
		for _, line := range strings.Split(string(steps[i].Data), "\n") {
			if line = strings.ReplaceAll(line, "$P", s.prefix); line != "" && !strings.HasPrefix(line, "#") {
				checked++
				if msg := check(s, a, from, line); msg != "" {
					t.Errorf("%s: %s: %s\nstatus %d\n%s", name, line, msg, a.status, tail(a.body, 1500))
				}
			}
		}
		if checked == 0 {
			t.Errorf("%s: nothing is checked", name)
		}
	}
}

func parseRequest(t *testing.T, s *stack, text string) request {
	t.Helper()
	r := request{header: http.Header{}}
	var crlf, unescape bool
	for {
		line, rest, _ := strings.Cut(text, "\n")
		if !strings.HasPrefix(line, "@") {
			break
		}
		word, arg, _ := strings.Cut(line, " ")
		switch word {
		case "@grant":
			r.grant = arg
		case "@direct":
			r.direct = true
		case "@crlf":
			crlf = true
		case "@unescape":
			unescape = true
		default:
			t.Fatalf("unknown %s", word)
		}
		text = rest
	}
	head, body, hasBody := strings.Cut(text, "\n\n")
	in := bufio.NewScanner(strings.NewReader(head))
	in.Scan()
	r.method, r.path, _ = strings.Cut(in.Text(), " ")
	for in.Scan() {
		k, v, ok := strings.Cut(in.Text(), ": ")
		if !ok {
			t.Fatalf("bad header line %q", in.Text())
		}
		r.header[http.CanonicalHeaderKey(k)] = append(r.header[http.CanonicalHeaderKey(k)], v)
	}
	if hasBody && body != "" {
		body = strings.ReplaceAll(body, "$P", s.prefix)
		if crlf {
			body = strings.ReplaceAll(body, "\n", "\r\n")
		}
		if unescape {
			body = hexEscape.ReplaceAllStringFunc(body, func(m string) string {
				var b byte
				for _, c := range []byte(m[2:]) {
					b = b<<4 | hexDigit(c)
				}
				return string([]byte{b})
			})
		}
		r.body = strings.NewReader(body)
	}
	return r
}

var hexEscape = regexp.MustCompile(`\\x[0-9a-f]{2}`)

func hexDigit(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'a' + 10
}

// check carries out one line of a want section and returns what is wrong.
func check(s *stack, a answer, from int, line string) string {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "status":
		if rest != http.StatusText(a.status) && rest != itoa(a.status) {
			return "another status"
		}
	case "header":
		k, v, _ := strings.Cut(rest, ": ")
		if got := a.header.Get(k); got != v {
			return "got " + got
		}
	case "json":
		path, want, _ := strings.Cut(rest, " =")
		want = strings.TrimPrefix(want, " ")
		if got := a.json(path).Raw; got != want {
			return "got " + got
		}
	case "body":
		verb, text, _ := strings.Cut(rest, " ")
		return checkText(verb, text, strings.TrimSuffix(a.body, "\n"))
	case "upstream":
		verb, text, _ := strings.Cut(rest, " ")
		if verb == "none" {
			for _, r := range s.rec.since(from) {
				if r.method != "GET" && !strings.Contains(r.target, "/_mget") && !strings.HasSuffix(r.target, "/_has_privileges") {
					return "the proxy sent " + r.method + " " + r.target
				}
			}
			return ""
		}
		all := ""
		for _, r := range s.rec.since(from) {
			all += r.String() + "\n"
		}
		return checkText(verb, text, all)
	default:
		return "unknown check"
	}
	return ""
}

func checkText(verb, text, in string) string {
	switch verb {
	case "is":
		if in != text {
			return "it differs"
		}
	case "has":
		if !strings.Contains(in, text) {
			return "it is not there"
		}
	case "lacks":
		if strings.Contains(in, text) {
			return "it is there"
		}
	case "matches":
		re, err := regexp.Compile(text)
		if err != nil {
			return err.Error()
		}
		if !re.MatchString(in) {
			return "no match"
		}
	default:
		return "unknown check"
	}
	return ""
}

func itoa(n int) string {
	return string([]byte{byte('0' + n/100%10), byte('0' + n/10%10), byte('0' + n%10)})
}
