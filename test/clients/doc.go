// Package clients tests the proxy with Elasticsearch's official Go client. It is a module of its own because the client's
// root package and its esutil pull in typedapi, thousands of files that the program itself does without.
package clients
