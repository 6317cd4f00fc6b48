package main

import "testing"

// TestPublishAddress: a port may be left out of a URL only; nothing but a host may stand there.
func TestPublishAddress(t *testing.T) {
	for _, c := range []struct {
		discovery, address, want string
		fails                    bool
	}{
		{"", "", "", false},
		{"rewrite", "", "", false},
		{"rewrite", "es.example:9280", "es.example:9280", false},
		{"pass", "es.example:9280", "es.example:9280", false},
		{"rewrite", "https://es.example", "es.example:443", false},
		{"rewrite", "http://es.example/", "es.example:80", false},
		{"rewrite", "https://[::1]:9280/", "[::1]:9280", false},
		{"rewrite", "es.example", "", true},
		{"rewrite", "es.example:9280/", "", true},
		{"rewrite", "ftp://es.example", "", true},
		{"rewrite", "https://es.example/path", "", true},
		{"rewrite", "https://user:password@es.example", "", true},
		{"rewrite", "https://", "", true},
		{"wat", "", "", true},
	} {
		got, err := publishAddress(&settings{Discovery: c.discovery, PublishAddress: c.address})
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%s, %s: %q, %v", c.discovery, c.address, got, err)
		}
	}
}
