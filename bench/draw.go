package main

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// draw makes an SVG of throughput over the reverse proxy's: one bar for each target, one group for each workload.
func (r *report) draw(file string) error {
	p := plot.New()
	p.Title.Text = "throughput / httputil.ReverseProxy (commit " + r.Commit + ")"
	p.Y.Min = 0
	p.Legend.Top = true
	targets := []string{naive, gcm, eax, pass, granted}
	shades := []color.Color{
		color.RGBA{0xb0, 0xb0, 0xb0, 0xff}, color.RGBA{0x1f, 0x6f, 0xb4, 0xff}, color.RGBA{0x7f, 0xb2, 0xdd, 0xff},
		color.RGBA{0x3a, 0x92, 0x4b, 0xff}, color.RGBA{0xd9, 0x7b, 0x29, 0xff},
	}
	var names []string
	var shown []*result
	for _, res := range r.Results {
		if len(res.Samples[rp]) == 0 {
			continue
		}
		shown = append(shown, res)
		names = append(names, fmt.Sprintf("%s, %d", res.Workload, res.Clients))
	}
	const width = 9
	for i, target := range targets {
		values := make(plotter.Values, len(shown))
		for j, res := range shown {
			if slices.Contains(res.Targets, target) {
				values[j] = res.perRound(throughput, target, rp).Median
			}
		}
		bars, err := plotter.NewBarChart(values, vg.Points(width))
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width = shades[i], 0
		bars.Offset = vg.Points(width * (float64(i) - float64(len(targets)-1)/2))
		p.Add(bars)
		p.Legend.Add(target, bars)
	}
	line := plotter.NewFunction(func(float64) float64 { return 1 })
	line.Color = color.Gray{0x60}
	line.Dashes = []vg.Length{vg.Points(3), vg.Points(3)}
	p.Add(line)
	p.NominalX(names...)
	p.X.Tick.Label.Rotation = 0.5
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = -1, -0.5
	return p.Save(vg.Points(float64(max(8, len(shown))*width*7)), vg.Points(380), file)
}
