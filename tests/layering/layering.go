// Package layering holds the repository to its shape, which the compiler does not: which way imports
// point, which packages are pure, who runs other programs, and what may lie at the top. It reads
// source text only, without loading packages, so it costs a fraction of a second and needs no build.
//
// It cannot see through types. A package variable that is changed by one of its methods escapes it, and
// a local variable that shadows a package variable is taken for it; rename the local.
package layering

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// module is the module path, with which the imports of our own packages begin.
const module = "understudy/"

// pure lists the packages that take values and return values. Those that exist are held to it.
var pure = []string{"bootstrap/role", "sidecar/cluster", "sidecar/decide"}

// mustExist are the files without which a rule above would hold of nothing.
var mustExist = []string{"bootstrap/role/role.go"}

// top is all that may lie at the top, besides what begins with a dot.
var top = []string{
	"bootstrap", "sidecar", "puppet", "roles.yaml", "systemd", "tests", "go.mod", "go.sum", "Makefile", "README.md",
	"LICENSE", "CHANGELOG.md", "secrets.age",
}

// vague are directory names that say nothing about what is inside.
var vague = []string{"cmd", "internal", "pkg", "docs", "util"}

// Finding is one place where a rule is broken.
type Finding struct {
	Path string // relative to the repository
	Line int    // from 1; zero: the file or directory as such
	Msg  string
}

func (f Finding) String() string {
	if f.Line == 0 {
		return f.Path + ": " + f.Msg
	}
	return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Msg)
}

// Check looks at files, which are paths in fsys, and returns what breaks a rule, in the order of the
// paths. A file that cannot be read or parsed is a finding, too.
func Check(fsys fs.FS, files []string) []Finding {
	c := &checker{fset: token.NewFileSet(), packages: map[string][]*ast.File{}}
	for _, name := range mustExist {
		if !slices.Contains(files, name) {
			c.add(name, token.NoPos, "is missing")
		}
	}
	c.checkShape(files)
	for _, name := range files {
		if strings.HasSuffix(name, ".go") && !slices.Contains(strings.Split(name, "/"), "testdata") {
			c.checkFile(fsys, name)
		}
	}
	for _, pkg := range pure {
		c.checkVariables(c.packages[pkg])
	}
	slices.SortStableFunc(c.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line))
	})
	return c.findings
}

type checker struct {
	fset     *token.FileSet
	packages map[string][]*ast.File // the parsed files of the pure packages
	findings []Finding
}

func (c *checker) add(name string, pos token.Pos, format string, args ...any) {
	line := 0
	if pos.IsValid() {
		line = c.fset.Position(pos).Line
	}
	c.findings = append(c.findings, Finding{name, line, fmt.Sprintf(format, args...)})
}

// checkShape looks at names alone.
func (c *checker) checkShape(files []string) {
	told := map[string]bool{}
	tell := func(name, msg string) {
		if !told[name] {
			told[name] = true
			c.add(name, token.NoPos, "%s", msg)
		}
	}
	for _, name := range files {
		parts := strings.Split(name, "/")
		if first := parts[0]; !strings.HasPrefix(first, ".") && !slices.Contains(top, first) {
			tell(first, "is not one of the names that may lie at the top")
		}
		for i, dir := range parts[:len(parts)-1] {
			if slices.Contains(vague, dir) {
				tell(path.Join(parts[:i+1]...), "is a directory whose name says nothing about what is inside")
			}
		}
	}
}

func (c *checker) checkFile(fsys fs.FS, name string) {
	pkg := path.Dir(name)
	isTest := strings.HasSuffix(name, "_test.go")
	mode := parser.ImportsOnly
	if slices.Contains(pure, pkg) && !isTest {
		mode = parser.SkipObjectResolution
	}
	source, err := fs.ReadFile(fsys, name)
	if err != nil {
		c.add(name, token.NoPos, "%v", err)
		return
	}
	file, err := parser.ParseFile(c.fset, name, source, mode)
	if err != nil {
		c.add(name, token.NoPos, "%v", err)
		return
	}
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value) // the parser has checked it
		c.checkImport(name, spec.Pos(), imported)
		if imported == "os/exec" && within(pkg, "bootstrap") && pkg != "bootstrap/command" && !isTest {
			c.add(name, spec.Pos(), "imports os/exec; only bootstrap/command runs other programs")
		}
	}
	if mode != parser.ImportsOnly {
		c.packages[pkg] = append(c.packages[pkg], file)
		c.checkPurity(name, file)
	}
}

// simulates is the command that plays tests/sim for users.
const simulates = "sidecar/simulate_cmd.go"

// checkImport holds imports to one direction: tests → sidecar → bootstrap.
func (c *checker) checkImport(name string, pos token.Pos, imported string) {
	ours, ok := strings.CutPrefix(imported, module)
	switch {
	case !ok:
	case name == simulates && ours == "tests/sim":
	case within(ours, "tests") && !within(name, "tests"):
		c.add(name, pos, "imports %s; nothing outside tests knows of them", imported)
	case within(ours, "sidecar") && within(name, "bootstrap"):
		c.add(name, pos, "imports %s; bootstrap knows nothing of the sidecar", imported)
	}
}

// within reports whether a path is dir or below it.
func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }
