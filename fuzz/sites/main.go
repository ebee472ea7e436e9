// Command sites lists the places of a package where an error is looked at, and
// whether a test has been there.
//
//	go test -covermode=atomic -coverprofile=cover.out ./wal
//	go run ./fuzz/sites -profile cover.out ./wal
//
// A site is an if, or a case of a switch without a tag, whose condition compares
// an error with nil or hands one to errors.Is or errors.As. It is reached if its
// body ran; an if that asks for err == nil is reached if its else ran, or
// without one if its body was passed by. That last needs counts: a profile of
// mode set does not have them. What else a mixed condition (||, &&) asks for is
// not told apart.
//
// The exit status is 1 if a site was not reached, 2 if the question makes no
// sense.
package main

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

func main() {
	profile := flag.String("profile", "cover.out", "a coverage profile of the package, mode count or atomic")
	missing := flag.Bool("missing", false, "print only what was not reached")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: sites [-missing] -profile FILE DIR")
		os.Exit(2)
	}
	sites, err := run(*profile, flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, "sites:", err)
		os.Exit(2)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	unreached := 0
	for _, s := range sites {
		if s.reached && *missing {
			continue
		}
		word := "yes"
		if !s.reached {
			word = "NO"
			unreached++
		}
		fmt.Fprintf(w, "%s:%d\t%s\t%s\t%s\n", s.at.Filename, s.at.Line, s.fn, word, s.cond)
	}
	w.Flush()
	fmt.Printf("%d sites, %d not reached\n", len(sites), unreached)
	if unreached > 0 {
		os.Exit(1)
	}
}

// site is a place where an error is looked at.
type site struct {
	at      token.Position
	fn      string
	cond    string
	reached bool
}

func run(profile, dir string) ([]site, error) {
	blocks, err := readProfile(profile)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	var sites []site
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no Go files", dir)
	}
	// The types that need no import; names stand in for the rest.
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	conf := types.Config{Importer: noImports{}, Error: func(error) {}}
	conf.Check(dir, fset, files, info) //nolint:errcheck // incomplete on purpose
	for _, f := range files {
		name := fset.Position(f.Pos()).Filename
		own, err := blocks.of(name)
		if err != nil {
			return nil, err
		}
		v := visitor{fset: fset, info: info, blocks: own}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				v.fn = fn.Name.Name
				ast.Inspect(fn.Body, v.visit)
			}
		}
		sites = append(sites, v.sites...)
	}
	return sites, nil
}

type noImports struct{}

func (noImports) Import(path string) (*types.Package, error) {
	return nil, fmt.Errorf("%s is not looked at", path)
}

// visitor gathers the sites of one file.
type visitor struct {
	fset   *token.FileSet
	info   *types.Info
	blocks []block
	fn     string
	sites  []site
}

func (v *visitor) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.IfStmt:
		about, isNil := v.asks(n.Cond)
		if !about {
			break
		}
		body := v.ran(n.Body.Lbrace, n.Body.List)
		switch e := n.Else.(type) {
		case nil:
			if isNil {
				body = v.count(n.Cond.Pos()) - body
			}
		case *ast.BlockStmt:
			if isNil {
				body = v.ran(e.Lbrace, e.List)
			}
		case *ast.IfStmt:
			if isNil {
				body = v.count(e.Cond.Pos())
			}
		}
		v.add(n.Pos(), n.Cond, body > 0)
	case *ast.SwitchStmt:
		if n.Tag != nil {
			break
		}
		for _, s := range n.Body.List {
			c := s.(*ast.CaseClause)
			for _, cond := range c.List {
				if about, _ := v.asks(cond); about && len(c.Body) > 0 {
					v.add(cond.Pos(), cond, v.ran(c.Colon, c.Body) > 0)
				}
			}
		}
	}
	return true
}

func (v *visitor) add(at token.Pos, cond ast.Expr, reached bool) {
	v.sites = append(v.sites, site{v.fset.Position(at), v.fn, types.ExprString(cond), reached})
}

// asks says that a condition is about an error, and whether it is the plain
// question for none.
func (v *visitor) asks(cond ast.Expr) (about, isNil bool) {
	ast.Inspect(cond, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.BinaryExpr:
			if n.Op != token.EQL && n.Op != token.NEQ {
				break
			}
			for _, side := range [][2]ast.Expr{{n.X, n.Y}, {n.Y, n.X}} {
				if id, ok := side[1].(*ast.Ident); ok && (id.Name == "nil" || v.isError(id)) && v.isError(side[0]) {
					about = true
					isNil = isNil || n.Op == token.EQL && id.Name == "nil"
				}
			}
		case *ast.CallExpr:
			if s, ok := n.Fun.(*ast.SelectorExpr); ok {
				if pkg, ok := s.X.(*ast.Ident); ok && pkg.Name == "errors" && (s.Sel.Name == "Is" || s.Sel.Name == "As") {
					about = true
				}
			}
		}
		return true
	})
	return about, isNil
}

var errorName = regexp.MustCompile(`^err([A-Z0-9_].*)?$|[a-z0-9]*(Err|err)$`)

func (v *visitor) isError(e ast.Expr) bool {
	if t := v.info.Types[e].Type; t != nil && t != types.Typ[types.Invalid] {
		return types.Identical(t, types.Universe.Lookup("error").Type())
	}
	switch e := e.(type) {
	case *ast.Ident:
		return errorName.MatchString(e.Name)
	case *ast.SelectorExpr:
		return errorName.MatchString(e.Sel.Name)
	case *ast.CallExpr:
		return v.isError(e.Fun) // ctx.Err()
	}
	return false
}

// ran is how often a body was entered; one without statements is not counted.
func (v *visitor) ran(open token.Pos, list []ast.Stmt) int {
	if len(list) == 0 {
		return 0
	}
	from, to := v.fset.Position(open), v.fset.Position(list[0].Pos())
	for _, b := range v.blocks {
		if !b.from.before(from) && !after(b.from, to) {
			return b.count
		}
	}
	return v.count(list[0].Pos())
}

// count is how often the statement at a place was reached.
func (v *visitor) count(at token.Pos) int {
	p := v.fset.Position(at)
	best := block{}
	for _, b := range v.blocks {
		if !after(b.from, p) && after(b.to, p) && (best.to == place{} || best.from.before(position(b.from))) {
			best = b
		}
	}
	return best.count
}

type place struct{ line, col int }

func position(p place) token.Position { return token.Position{Line: p.line, Column: p.col} }

func (p place) compare(q token.Position) int {
	return cmp.Or(cmp.Compare(p.line, q.Line), cmp.Compare(p.col, q.Column))
}

func (p place) before(q token.Position) bool { return p.compare(q) < 0 }
func after(p place, q token.Position) bool   { return p.compare(q) > 0 }

// block is a row of a profile.
type block struct {
	from, to place
	count    int
}

// profileRows are the blocks of a profile by the file's name in it.
type profileRows map[string][]block

func readProfile(name string) (profileRows, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows := profileRows{}
	in := bufio.NewScanner(f)
	if !in.Scan() || in.Text() != "mode: count" && in.Text() != "mode: atomic" {
		return nil, fmt.Errorf("%s: %q: counts are needed: go test -covermode=atomic", name, in.Text())
	}
	for in.Scan() {
		file, rest, ok := cutLast(in.Text(), ":")
		var b block
		var statements int
		if ok {
			_, err = fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &b.from.line, &b.from.col, &b.to.line, &b.to.col, &statements, &b.count)
		}
		if !ok || err != nil {
			return nil, fmt.Errorf("%s: line %q: %w", name, in.Text(), err)
		}
		rows[file] = append(rows[file], b)
	}
	for _, bs := range rows {
		slices.SortFunc(bs, func(a, b block) int { return a.from.compare(position(b.from)) })
	}
	return rows, in.Err()
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// of finds a file's blocks: the profile has its import path, we have its path.
func (p profileRows) of(file string) ([]block, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	abs = filepath.ToSlash(abs)
	want := filepath.Base(filepath.Dir(abs)) + "/" + filepath.Base(abs)
	for name, bs := range p {
		if name == want || strings.HasSuffix(name, "/"+want) {
			return bs, nil
		}
	}
	return nil, nil // a file without a statement
}
