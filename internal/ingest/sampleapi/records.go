package sampleapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// Record is one user as the provider sends it: these members in this order.
// Dates are ISO 8601 in UTC with milliseconds, except in the first record, where they are dd/MM/yyyy.
type Record struct {
	FecAlta         string `json:"fec_alta"`
	UserName        string `json:"user_name"` // unique
	CodigoZip       string `json:"codigo_zip"`
	CreditCardNum   string `json:"credit_card_num"` // dddd-dddd-dddd-dddd, unique, not a valid card
	CreditCardCCV   string `json:"credit_card_ccv"` // three digits
	CuentaNumero    string `json:"cuenta_numero"`   // eight digits
	Direccion       string `json:"direccion"`
	GeoLatitud      string `json:"geo_latitud"`
	GeoLongitud     string `json:"geo_longitud"`
	ColorFavorito   string `json:"color_favorito"`
	FotoDNI         string `json:"foto_dni"`
	IP              string `json:"ip"`
	Auto            string `json:"auto"`
	AutoModelo      string `json:"auto_modelo"`
	AutoTipo        string `json:"auto_tipo"`
	AutoColor       string `json:"auto_color"`
	CantidadCompras int    `json:"cantidad_compras_realizadas"`
	Avatar          string `json:"avatar"`
	FecBirthday     string `json:"fec_birthday"`
	ID              string `json:"id"` // "1", "2", …
}

// JSON returns the record as one line of JSON without a newline.
func (r Record) JSON() []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		panic(fmt.Sprintf("sampleapi: encoding a record of strings: %v", err)) // cannot happen: strings and one int
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

const (
	isoMillis = "2006-01-02T15:04:05.000Z"
	dayFirst  = "02/01/2006"
	anaAt     = 6 // position of the user called Ana; the last record when there are fewer
)

var (
	firstNames = []string{"Lucía", "Mateo", "Sofía", "Bruno", "Elena", "Iker", "Marta", "Hugo", "Nora", "Pablo", "Irene", "Óscar", "Clara", "Tomás", "Vera", "Julián"}
	lastNames  = []string{"Ferrán", "Quiroga", "Montes", "Arce", "Beltrán", "Salas", "Iglesias", "Roldán", "Vidal", "Prieto", "Núñez", "Cano", "Lorca", "Palma"}
	streets    = []string{"Calle del Olmo", "Avenida de los Tilos", "Plaza del Molino", "Camino Real", "Paseo de la Ribera", "Calle Luna"}
	towns      = []string{"Villarrosa", "Puerto Claro", "Montealto", "Riofrío del Valle", "San Telmo"}
	colors     = []string{"rojo", "azul", "verde", "violeta", "turquesa", "naranja", "gris", "lima"}
	makers     = []string{"Arión", "Vento", "Kestrel", "Nimbo", "Tarsis"}
	models     = []string{"A1", "Sierra", "Delta", "Z40", "Brisa", "Cumbre"}
	kinds      = []string{"sedán", "familiar", "todoterreno", "furgoneta", "descapotable"}
	nets       = []string{"192.0.2.", "198.51.100.", "203.0.113."} // documentation ranges, RFC 5737
)

// Records returns the first n records. They are the same in every run;
// Records(n)[i] does not depend on n, except that a list shorter than seven has Ana last.
func Records(n int) []Record {
	list := make([]Record, max(n, 0))
	for i := range list {
		list[i] = record(i)
		if i == min(anaAt, n-1) {
			list[i].UserName = "Ana"
		}
	}
	return list
}

func record(i int) Record {
	rng := rand.New(rand.NewPCG(0x65737072, uint64(i)))
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	day := func(fromYear, years int) time.Time {
		start := time.Date(fromYear, 1, 1, 0, 0, 0, 0, time.UTC)
		return start.Add(time.Duration(rng.Int64N(int64(years)*365*24*3600*1000)) * time.Millisecond)
	}
	id := strconv.Itoa(i + 1)
	joined, born := day(2018, 6), day(1950, 52)
	r := Record{
		FecAlta:     joined.Format(isoMillis),
		FecBirthday: born.Format(isoMillis),
		UserName:    fmt.Sprintf("%s.%s%d", pick(firstNames), pick(lastNames), i+1),
		CodigoZip:   fmt.Sprintf("%05d-%04d", rng.IntN(100000), rng.IntN(10000)),
		// The middle groups count up, so that no two records share a number.
		CreditCardNum:   fmt.Sprintf("%04d-%04d-%04d-%04d", 1000+rng.IntN(9000), i/10000%10000, i%10000, rng.IntN(10000)),
		CreditCardCCV:   fmt.Sprintf("%03d", rng.IntN(1000)),
		CuentaNumero:    fmt.Sprintf("%08d", 10000000+rng.IntN(90000000)),
		Direccion:       fmt.Sprintf("%s %d, %s", pick(streets), 1+rng.IntN(200), pick(towns)),
		GeoLatitud:      fmt.Sprintf("%.4f", rng.Float64()*180-90),
		GeoLongitud:     fmt.Sprintf("%.4f", rng.Float64()*360-180),
		ColorFavorito:   pick(colors),
		FotoDNI:         "http://images.example/dni/" + id + ".jpg",
		IP:              pick(nets) + strconv.Itoa(1+rng.IntN(254)),
		Auto:            pick(makers),
		AutoModelo:      pick(models),
		AutoTipo:        pick(kinds),
		AutoColor:       pick(colors),
		CantidadCompras: rng.IntN(100000),
		Avatar:          "http://images.example/avatar/" + id + ".png",
		ID:              id,
	}
	if i == 0 {
		r.FecAlta, r.FecBirthday = "11/01/2022", born.Format(dayFirst)
	}
	return r
}
