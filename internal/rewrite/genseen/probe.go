package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// nobody is a path segment that no server gives a meaning. It begins with an underscore, so it is no index either.
const nobody = "_esproxy_nobody"

// server is one running Elasticsearch or OpenSearch.
type server struct {
	base, version string
	client        http.Client
	asks          bool                // it has _capabilities
	allow         map[string][]string // by path: the methods that OPTIONS tells
}

func connect(base string) (*server, error) {
	s := &server{base: strings.TrimRight(base, "/"), client: http.Client{Timeout: 10 * time.Second}, allow: map[string][]string{}}
	_, body, err := s.do("GET", "/_nodes/_local?filter_path=nodes.*.version", "", "")
	if err != nil {
		return nil, err
	}
	var reply struct {
		Nodes map[string]struct{ Version string } `json:"nodes"`
	}
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		return nil, err
	}
	for _, n := range reply.Nodes {
		s.version = n.Version
	}
	if s.version == "" {
		return nil, errors.New("the server does not tell its version")
	}
	s.asks, _ = s.supports("GET", "/_nodes", "")
	return s, nil
}

func (s *server) do(method, path, accept, body string) (http.Header, string, error) {
	req, err := http.NewRequest(method, s.base+path, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.Header, string(text), err
}

// knows reports whether the server has a route of its own for a row: a handler for the filled-in path that it has not
// for the same path with another first word, which only routes such as /{index} can match.
func (s *server) knows(r row) (bool, error) {
	has := s.allows
	if s.asks {
		accept := ""
		if strings.HasPrefix(r.api, "compat7.") {
			accept = "application/vnd.elasticsearch+json;compatible-with=7"
		}
		has = func(method, path string) (bool, error) { return s.supports(method, path, accept) }
	}
	path, other := fill(r.template)
	known, err := has(r.method, path)
	if err != nil || !known || other == "" {
		return known, err
	}
	if known, err = has(r.method, other); err != nil || !known {
		return err == nil, err
	}
	if strings.Count(path, "/") > 1 {
		return false, nil // a route such as /{index}/_cache matches both
	}
	return s.differs(r.method, path, other)
}

// fill gives a path of the template's form, and the same with another first word; that is "" where the first segment is
// a parameter or there is none.
func fill(template string) (path, other string) {
	segs := strings.Split(strings.Trim(template, "/"), "/")
	for i, seg := range segs {
		if strings.HasPrefix(seg, "{") {
			segs[i] = "x"
		}
	}
	path = "/" + strings.Join(segs, "/")
	if strings.HasPrefix(template, "/{") || template == "/" {
		return path, ""
	}
	segs[0] = nobody
	return path, "/" + strings.Join(segs, "/")
}

// supports asks Elasticsearch's own API whether it has a handler.
func (s *server) supports(method, path, accept string) (bool, error) {
	_, body, err := s.do("GET", "/_capabilities?method="+method+"&path="+url.QueryEscape(path), accept, "")
	if err != nil {
		return false, err
	}
	var reply struct{ Supported *bool }
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		return false, err
	}
	if reply.Supported == nil && accept != "" {
		return false, nil // 9.x takes no compatible-with=7
	}
	if reply.Supported == nil {
		return false, fmt.Errorf("no answer to a question for a capability: %.200s", body)
	}
	return *reply.Supported, nil
}

// allows asks with OPTIONS.
func (s *server) allows(method, path string) (bool, error) {
	have, ok := s.allow[path]
	if !ok {
		head, _, err := s.do("OPTIONS", path, "", "")
		if err != nil {
			return false, err
		}
		have = strings.Split(head.Get("Allow"), ",")
		s.allow[path] = have
	}
	return slices.Contains(have, method), nil
}

// differs compares the errors of two paths, one segment each. Each question has a parameter that no handler takes, so that
// nothing is carried out. The error lists it and those others that this handler does not take, or tells which one it cannot read.
func (s *server) differs(method, path, other string) (bool, error) {
	for _, query := range []string{"refresh=true&master_timeout=1s&timeout=1s&wait_for_active_shards=1&acknowledge=true", "features=zzz", "include_defaults=zzz", "wait_for_active_shards=zzz", "ignore_unavailable=zzz"} {
		for _, body := range []string{"", "["} {
			_, one, err := s.do(method, path+"?esproxy_nobody=1&"+query, "", body)
			if err != nil {
				return false, err
			}
			_, two, err := s.do(method, other+"?esproxy_nobody=1&"+query, "", body)
			if err != nil {
				return false, err
			}
			if strings.ReplaceAll(one, path, other) != two {
				return true, nil
			}
		}
	}
	return false, nil
}
