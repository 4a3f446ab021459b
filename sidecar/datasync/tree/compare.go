//go:build linux

package tree

import "cmp"

// Child is what two machines tell each other of one name in a directory: enough to see whether it is the same.
type Child struct {
	Name      string
	Kind      Kind
	Unsettled bool
	Sum       Hash // Entry.Sum
	Digest    Hash // of a directory: of what lies in it, its Entry.Hash
}

// Children is a directory in the form that is compared, by name; nothing where there is no such directory.
func (t *Tree) Children(path string) []Child {
	if !Valid(path) {
		return nil
	}
	t.freshen()
	b := &buffers{}
	children := t.at(path).children()
	all := make([]Child, 0, len(children))
	for _, n := range children {
		c := Child{Name: n.name, Kind: n.kind, Unsettled: n.has(unsettled), Sum: n.sum(b)}
		if n.kind == Directory {
			c.Digest = n.hash
		}
		all = append(all, c)
	}
	return all
}

// Verdict is how a name stands on the mirror.
type Verdict uint8

const (
	Missing  Verdict = iota + 1 // only the source has it
	Extra                       // only the mirror has it
	Differs                     // its own entry is another, or of another kind
	Contents                    // a directory whose own entry is the same, unlike what lies in it
	Held                        // the source does not know what it is: leave the mirror's as it is
)

// Finding is one name on which the sides do not agree. Descend: what lies in it must be compared, too.
type Finding struct {
	Name    string
	Verdict Verdict
	Descend bool
}

// Compare looks at one directory of both sides, each sorted by name without duplicates, as Children gives them. What is equal
// is not in the result.
func Compare(source, mirror []Child) (found []Finding) {
	for len(source) > 0 || len(mirror) > 0 {
		order := 0
		switch {
		case len(mirror) == 0:
			order = -1
		case len(source) == 0:
			order = 1
		default:
			order = cmp.Compare(source[0].Name, mirror[0].Name)
		}
		var f Finding
		switch {
		case order < 0:
			f = Finding{Name: source[0].Name, Verdict: Missing, Descend: source[0].Kind == Directory}
			if source[0].Unsettled {
				f.Verdict, f.Descend = Held, false
			}
		case order > 0:
			f = Finding{Name: mirror[0].Name, Verdict: Extra}
		default:
			f = compareChild(source[0], mirror[0])
		}
		if f.Verdict != 0 {
			found = append(found, f)
		}
		if order <= 0 {
			source = source[1:]
		}
		if order >= 0 {
			mirror = mirror[1:]
		}
	}
	return found
}

func compareChild(source, mirror Child) Finding {
	f := Finding{Name: source.Name}
	switch {
	case source.Unsettled:
		f.Verdict = Held
	case source.Kind != mirror.Kind || mirror.Unsettled:
		f.Verdict, f.Descend = Differs, source.Kind == Directory
	case source.Sum != mirror.Sum:
		f.Verdict, f.Descend = Differs, source.Digest != mirror.Digest
	case source.Digest != mirror.Digest:
		f.Verdict, f.Descend = Contents, true
	}
	return f
}
