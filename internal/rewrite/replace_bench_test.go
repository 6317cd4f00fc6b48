package rewrite

import (
	"fmt"
	"testing"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/esproxy/esproxy/config"
	"github.com/esproxy/esproxy/internal/policy"
)

// benchDocument has 21 members and 590 bytes, three protected values and a subject among them.
const benchDocument = `{"fec_alta":"2021-08-23T10:35:24.123Z","username":"user100000001","code_zip":"57353-3487","credit_card_num":"6767-2293-4172-5","credit_card_ccv":"824-824-824-8241","cuenta_numero":"5844329758443297","direccion":"some street 12","geo_latitud":"-25.4601","geo_longitud":"-120.4236","color_favorito":"azul","foto_dni":"http://images.example/1.jpg","ip":"203.0.113.4","auto":"Tarsis","auto_modelo":"Z40","auto_tipo":"x","auto_color":"azul","cantidad_compras_realizadas":62301,"avatar":"http://images.example/2.jpg","fec_birthday":"1977-06-06T00:45:46.512Z","id":"1"}`

// BenchmarkReplace compares the JSON part alone: the strict pass, and gjson with sjson, which check less. A
// value of fixed length stands for the sealed one.
func BenchmarkReplace(b *testing.B) {
	pol, err := policy.Parse("fields.yaml", config.Fields)
	if err != nil {
		b.Fatal(err)
	}
	t := newTarget(pol.Rules, false)
	doc := []byte(benchDocument)
	sealed := fmt.Appendf(nil, `"%0227d"`, 0)
	b.Run("strict", func(b *testing.B) {
		s := newDocScanner(func([]byte) bool { return false })
		var p part
		var out []byte
		b.SetBytes(int64(len(doc)))
		b.ReportAllocs()
		for b.Loop() {
			if err := s.document(doc, t, &p); err != nil {
				b.Fatal(err)
			}
			out = out[:0]
			from := 0
			for _, f := range p.found {
				out = append(out, doc[from:f.start]...)
				out = append(out, sealed...)
				from = f.end
			}
			out = append(out, doc[from:]...)
		}
		if len(p.found) != 3 || p.subj[0].count != 1 {
			b.Fatal("not all was found")
		}
	})
	b.Run("gjson", func(b *testing.B) {
		b.SetBytes(int64(len(doc)))
		b.ReportAllocs()
		for b.Loop() {
			if !gjson.ValidBytes(doc) || gjson.GetBytes(doc, "username").Str == "" {
				b.Fatal("bad document")
			}
			out := doc
			for _, f := range pol.Rules[0].Fields {
				if !gjson.GetBytes(out, f.Path).Exists() {
					b.Fatal("no value")
				}
				var err error
				if out, err = sjson.SetRawBytes(out, f.Path, sealed); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
