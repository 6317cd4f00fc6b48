package rewrite

//go:generate go run ./gendocs routes.tsv seen.tsv ../../docs/endpoints.md
