package rewrite

//go:generate go run ./gendocs routes.tsv ../../docs/endpoints.md
