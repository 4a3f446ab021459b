package layering

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// pureImports is what a pure package may use, besides other pure packages: what computes, and neither
// reaches the outside nor waits. Whatever is missing here is added on purpose.
var pureImports = []string{
	"bytes", "cmp", "container/heap", "container/list", "crypto/sha256", "encoding", "encoding/base64", "encoding/binary",
	"encoding/hex", "encoding/json", "errors", "fmt", "hash", "hash/fnv", "io", "iter", "maps", "math", "math/bits",
	"net/netip", "net/url", "path", "regexp", "slices", "sort", "strconv", "strings", "time", "unicode", "unicode/utf8",
	"go.yaml.in/yaml/v3",
}

// impureNames are what those packages have that reaches the outside after all.
var impureNames = map[string][]string{
	"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer", "Local", "LoadLocation"},
	"fmt":  {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
}

// checkPurity looks for what one file of a pure package must not have.
func (c *checker) checkPurity(name string, file *ast.File) {
	imports := map[string]string{} // the name in this file → import path
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
		ours, _ := strings.CutPrefix(imported, module)
		if !slices.Contains(pureImports, imported) && !slices.Contains(pure, ours) {
			c.add(name, spec.Pos(), "imports %s, which a pure package does not", imported)
		}
		as := path.Base(imported)
		if spec.Name != nil {
			as = spec.Name.Name
		}
		if as == "." || as == "_" {
			c.add(name, spec.Pos(), "imports %s as %s; a pure package names what it uses", imported, as)
		}
		imports[as] = imported
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			c.add(name, n.Pos(), "starts a goroutine")
		case *ast.ChanType, *ast.SelectStmt, *ast.SendStmt:
			c.add(name, n.Pos(), "uses a channel")
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				c.add(name, n.Pos(), "has an init function")
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "print" || f.Name == "println") {
				c.add(name, n.Pos(), "calls %s", f.Name)
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && slices.Contains(impureNames[imports[x.Name]], n.Sel.Name) {
				c.add(name, n.Pos(), "uses %s.%s", imports[x.Name], n.Sel.Name)
			}
		}
		return true
	})
}

// checkVariables refuses variables of a package that any of its files changes.
func (c *checker) checkVariables(files []*ast.File) {
	variables := map[string]bool{}
	for _, file := range files {
		for _, decl := range file.Decls {
			if gen, ok := decl.(*ast.GenDecl); ok && gen.Tok == token.VAR {
				for _, spec := range gen.Specs {
					for _, ident := range spec.(*ast.ValueSpec).Names {
						variables[ident.Name] = ident.Name != "_"
					}
				}
			}
		}
	}
	for _, file := range files {
		name := c.fset.Position(file.Package).Filename
		ast.Inspect(file, func(n ast.Node) bool {
			for _, changed := range changes(n) {
				if ident := root(changed); ident != nil && variables[ident.Name] {
					c.add(name, n.Pos(), "changes the package variable %s", ident.Name)
				}
			}
			return true
		})
	}
}

// changes returns what one statement or expression writes to, or lets others write to.
func changes(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			return []ast.Expr{n.Key, n.Value}
		}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return []ast.Expr{n.X}
		}
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.Ident)
		if ok && len(n.Args) > 0 && slices.Contains([]string{"clear", "copy", "delete"}, f.Name) {
			return n.Args[:1]
		}
	}
	return nil
}

// root returns the variable that an expression such as v.field[i] is part of, or nil.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
