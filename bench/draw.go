package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// ratioTicks are the marks of the axis, which is logarithmic: twice as fast is as far from 1 as half as fast.
var ratioTicks = []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10}

// draw makes an SVG of throughput over the reverse proxy's: a row for each workload, a dot for each target.
func (r *report) draw(file string) error {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("Throughput / httputil.ReverseProxy (commit %s, %s)", r.Commit, r.Machine)
	p.Title.Padding = vg.Points(8)
	p.X.Label.Text = "median, smallest and largest of the rounds" // no longer than the axis
	p.X.Scale = plot.LogScale{}
	kinds := []struct {
		target string
		color  color.Color
	}{
		{naive, color.RGBA{0x8a, 0x8a, 0x8a, 0xff}},
		{gcm, color.RGBA{0x1f, 0x6f, 0xb4, 0xff}},
		{eax, color.RGBA{0x6d, 0xb6, 0xe8, 0xff}},
		{pass, color.RGBA{0x2f, 0x8f, 0x46, 0xff}},
		{granted, color.RGBA{0xd2, 0x5f, 0x1a, 0xff}},
		{"nginx", color.RGBA{0x9a, 0x5f, 0xb5, 0xff}},
		{"haproxy", color.RGBA{0xc8, 0x9f, 0xd8, 0xff}},
	}
	var shown []*result
	var names []string
	for _, res := range r.Results {
		if len(res.Samples[rp]) == 0 {
			continue
		}
		name := fmt.Sprintf("%s, %d clients", res.Workload, res.Clients)
		if res.Clients == 1 {
			name = res.Workload + ", 1 client"
		}
		shown = append([]*result{res}, shown...) // the axis goes upwards
		names = append([]string{name}, names...)
	}
	least, most := 1.0, 1.0
	for _, res := range shown {
		for _, kind := range kinds {
			if len(res.Samples[kind.target]) > 0 {
				v := res.perRound(throughput, kind.target, rp)
				least, most = min(least, v.Min), max(most, v.Max)
			}
		}
	}
	p.X.Min, p.X.Max = least/1.2, most*1.2
	rows := float64(len(shown))
	p.Y.Min, p.Y.Max = -0.5, rows+1.7 // the legend stands above the first row
	line := func(shade color.Color, from, to plotter.XY) error {
		l, err := plotter.NewLine(plotter.XYs{from, to})
		if err != nil {
			return err
		}
		l.Color, l.Width = shade, vg.Points(1)
		p.Add(l)
		return nil
	}
	var marks plot.ConstantTicks
	for _, v := range ratioTicks {
		if v < p.X.Min || v > p.X.Max {
			continue
		}
		marks = append(marks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', -1, 64)})
		shade := color.Gray{0xe0}
		if v == 1 {
			shade = color.Gray{0x40}
		}
		if err := line(shade, plotter.XY{X: v, Y: -0.5}, plotter.XY{X: v, Y: rows - 0.5}); err != nil {
			return err
		}
	}
	p.X.Tick.Marker = marks
	for row := range len(shown) + 1 {
		y := float64(row) - 0.5
		if err := line(color.Gray{0xe0}, plotter.XY{X: p.X.Min, Y: y}, plotter.XY{X: p.X.Max, Y: y}); err != nil {
			return err
		}
	}
	for i, kind := range kinds {
		var medians plotter.XYs
		for row, res := range shown {
			if len(res.Samples[kind.target]) == 0 {
				continue
			}
			v := res.perRound(throughput, kind.target, rp)
			y := float64(row) + 0.11*(float64(len(kinds)-1)/2-float64(i))
			medians = append(medians, plotter.XY{X: v.Median, Y: y})
			if err := line(kind.color, plotter.XY{X: v.Min, Y: y}, plotter.XY{X: v.Max, Y: y}); err != nil {
				return err
			}
		}
		if len(medians) == 0 {
			continue
		}
		points, err := plotter.NewScatter(medians)
		if err != nil {
			return err
		}
		points.GlyphStyle = draw.GlyphStyle{Color: kind.color, Radius: vg.Points(3), Shape: draw.CircleGlyph{}}
		p.Add(points)
		p.Legend.Add(kind.target, points)
	}
	var workloads plot.ConstantTicks
	for row, name := range names {
		workloads = append(workloads, plot.Tick{Value: float64(row), Label: name + "   "}) // room for fonts that run wider
	}
	p.Y.Tick.Marker, p.Y.Tick.Length, p.Y.LineStyle.Width = workloads, 0, 0
	p.Legend.Left, p.Legend.Top = true, true
	p.Legend.TextStyle.Font.Size, p.Legend.Padding = vg.Points(9), vg.Points(2)
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		style.Font.Variant = "Sans"
	}
	picture, err := p.WriterTo(vg.Points(760), vg.Points(90+38*(rows+2)), "svg")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if _, err := picture.WriteTo(&out); err != nil {
		return err
	}
	// Where the font is missing, others with its widths.
	svg := bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif"))
	return os.WriteFile(file, svg, 0o644)
}
