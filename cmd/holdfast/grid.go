package main

import (
	"strings"
	"unicode/utf8"
)

// none stands in a cell that has nothing to say.
const none = "-"

// grid lines up numbers under their heads: the first columns to the left, the others to
// the right.
type grid struct {
	head   []string
	left   int  // columns that are names
	sparse bool // leave columns out that have nothing to say in any row
	rows   [][]string
}

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

func (g *grid) String() string {
	widths := make([]int, len(g.head))
	for c, h := range g.head {
		for _, row := range g.rows {
			if !g.sparse || c < g.left || row[c] != none {
				widths[c] = max(widths[c], utf8.RuneCountInString(h), utf8.RuneCountInString(row[c]))
			}
		}
	}
	var out strings.Builder
	for _, row := range append([][]string{g.head}, g.rows...) {
		var line strings.Builder
		for c, cell := range row {
			if widths[c] == 0 {
				continue
			}
			if line.Len() > 0 {
				line.WriteString("  ")
			}
			pad := strings.Repeat(" ", max(0, widths[c]-utf8.RuneCountInString(cell)))
			if c < g.left {
				line.WriteString(cell + pad)
			} else {
				line.WriteString(pad + cell)
			}
		}
		out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return out.String()
}
