package sampleapi_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
)

func TestRecordsHaveTheShapeOfTheProvider(t *testing.T) {
	members := []string{"fec_alta", "user_name", "codigo_zip", "credit_card_num", "credit_card_ccv", "cuenta_numero", "direccion",
		"geo_latitud", "geo_longitud", "color_favorito", "foto_dni", "ip", "auto", "auto_modelo", "auto_tipo", "auto_color",
		"cantidad_compras_realizadas", "avatar", "fec_birthday", "id"}
	patterns := map[string]string{
		"codigo_zip": `^\d{5}-\d{4}$`, "credit_card_num": `^\d{4}-\d{4}-\d{4}-\d{4}$`, "credit_card_ccv": `^\d{3}$`, "cuenta_numero": `^\d{8}$`,
		"geo_latitud": `^-?\d+\.\d{4}$`, "foto_dni": `^http://`, "avatar": `^http://`, "id": `^[1-9]\d*$`,
	}
	iso, dayFirst := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`), regexp.MustCompile(`^\d\d/\d\d/\d{4}$`)
	names, cards, anas := map[string]bool{}, map[string]bool{}, 0
	for i, r := range sampleapi.Records(100) {
		dec := json.NewDecoder(strings.NewReader(string(r.JSON())))
		var order []string
		values := map[string]any{}
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		for dec.More() {
			name, _ := dec.Token()
			value, _ := dec.Token()
			order = append(order, name.(string))
			values[name.(string)] = value
		}
		if d := cmp.Diff(members, order); d != "" {
			t.Fatalf("members of record %d (-want +got):\n%s", i, d)
		}
		for name, p := range patterns {
			if s, _ := values[name].(string); !regexp.MustCompile(p).MatchString(s) {
				t.Errorf("record %d: %s = %q, want %s", i, name, s, p)
			}
		}
		want := iso
		if i == 0 {
			want = dayFirst
		}
		if !want.MatchString(r.FecAlta) || !want.MatchString(r.FecBirthday) {
			t.Errorf("record %d: dates %q and %q do not match %s", i, r.FecAlta, r.FecBirthday, want)
		}
		if r.UserName == "Ana" {
			anas++
		}
		names[r.UserName], cards[r.CreditCardNum] = true, true
	}
	if got := sampleapi.Records(1)[0].FecAlta; got != "11/01/2022" {
		t.Errorf("first date = %q, want 11/01/2022", got)
	}
	if len(names) != 100 || len(cards) != 100 || anas != 1 {
		t.Errorf("%d names, %d cards, %d called Ana; want 100, 100, 1", len(names), len(cards), anas)
	}
	if d := cmp.Diff(sampleapi.Records(50), sampleapi.Records(100)[:50]); d != "" {
		t.Errorf("records depend on how many are asked for:\n%s", d)
	}
}

func TestHandlerForms(t *testing.T) {
	srv := httptest.NewServer(sampleapi.Handler(25))
	defer srv.Close()
	get := func(path string) (string, http.Header) {
		t.Helper()
		res, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("GET %s: status %d, %v", path, res.StatusCode, err)
		}
		return string(b), res.Header
	}
	count := func(body string) int { return strings.Count(body, `"user_name":`) }
	for path, want := range map[string]int{"/users": 25, "/users?page=1&limit=10": 10, "/users?page=3&limit=10": 5, "/users?page=4&limit=10": 0,
		"/users.ndjson": 25, "/users?cursor=&limit=20": 20, "/users?cursor=20&limit=20": 5, "/users/next": 10, "/users/link?after=20": 5} {
		body, _ := get(path)
		if got := count(body); got != want {
			t.Errorf("GET %s: %d records, want %d", path, got, want)
		}
	}
	if body, _ := get("/users?cursor=20&limit=20"); !strings.HasSuffix(body, `"next_cursor":null}`) {
		t.Errorf("last cursor page ends in %q, want a null cursor", body[len(body)-40:])
	}
	if _, h := get("/users/link"); !strings.Contains(h.Get("Link"), `rel="next"`) {
		t.Errorf("Link = %q, want a next link", h.Get("Link"))
	}
	if body, _ := get("/users?page=4&limit=10"); body != "[]" {
		t.Errorf("empty page = %q, want []", body)
	}
}

func TestHandlerRefusesWrongToken(t *testing.T) {
	srv := httptest.NewServer(sampleapi.New(sampleapi.Options{N: 1, Bearer: "right"}))
	defer srv.Close()
	for token, want := range map[string]int{"right": 200, "wrong": 401, "": 401} {
		req, _ := http.NewRequest("GET", srv.URL+"/users", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("token %q: status %d, want %d", token, res.StatusCode, want)
		}
	}
}
