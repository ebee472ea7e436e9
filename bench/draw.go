package main

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// draw makes a picture of the rows beside their first peer, on a logarithmic axis: the
// ratio with its interval, the floor and the goal.
func (r *report) draw(path string) error {
	var rows []result
	for _, x := range r.Rows {
		if row, err := rowOf(x.ID); err == nil && row.peers[0] == x.Peer && x.Ratio > 0 {
			rows = append(rows, x)
		}
	}
	if len(rows) == 0 {
		return fmt.Errorf("no row to draw")
	}
	slices.Reverse(rows) // the first is on top
	p := plot.New()
	p.Title.Text = fmt.Sprintf("How many times as fast as the peer (%v, %v cores, %v, suite %v)",
		r.Machine["date"], r.Machine["cores"], r.Machine["go"], r.Machine["suite"])
	p.X.Label.Text = "ratio, 1 is as fast; logarithmic"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Add(plotter.NewGrid())
	var ratios, floors, goals plotter.XYs
	bars := spread{}
	names := make([]string, len(rows))
	for i, x := range rows {
		y := float64(i)
		names[i] = x.ID + " / " + x.Peer
		ratios = append(ratios, plotter.XY{X: x.Ratio, Y: y})
		bars.XYs = append(bars.XYs, plotter.XY{X: x.Ratio, Y: y})
		bars.XErrors = append(bars.XErrors, struct{ Low, High float64 }{x.Ratio - x.Lo, x.Hi - x.Ratio})
		if x.Floor > 0 {
			floors = append(floors, plotter.XY{X: x.Floor, Y: y})
		}
		if x.Goal > 0 {
			goals = append(goals, plotter.XY{X: x.Goal, Y: y})
		}
	}
	p.NominalY(names...)
	span, err := plotter.NewXErrorBars(bars)
	if err != nil {
		return err
	}
	p.Add(span)
	p.Legend.Top, p.Legend.Left = true, false
	for _, s := range []struct {
		name  string
		at    plotter.XYs
		shape draw.GlyphDrawer
		ink   color.Color
	}{
		{"floor", floors, draw.PlusGlyph{}, color.RGBA{R: 190, A: 255}},
		{"goal", goals, draw.CrossGlyph{}, color.RGBA{G: 130, A: 255}},
		{"Holdfast", ratios, draw.CircleGlyph{}, color.RGBA{B: 190, A: 255}},
	} {
		if len(s.at) == 0 {
			continue
		}
		dots, err := plotter.NewScatter(s.at)
		if err != nil {
			return err
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: s.ink, Radius: vg.Points(3), Shape: s.shape}
		p.Add(dots)
		p.Legend.Add(s.name, dots)
	}
	one, err := plotter.NewLine(plotter.XYs{{X: 1, Y: -0.5}, {X: 1, Y: float64(len(rows)) - 0.5}})
	if err != nil {
		return err
	}
	p.Add(one)
	return p.Save(8*vg.Inch, vg.Length(len(rows)+4)*0.22*vg.Inch, path)
}

// spread is what the rounds of each row are between.
type spread struct {
	plotter.XYs
	plotter.XErrors
}
