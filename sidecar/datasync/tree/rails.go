//go:build linux

package tree

import "fmt"

// Marker is what lies where a set's marker should be.
type Marker uint8

const (
	Unmarked Marker = iota // nothing
	Foreign                // that of another set
	Marked
)

// Situation is what is known before a mirror deletes anything.
type Situation struct {
	Marker  Marker // the source's
	Source  Totals
	Mirror  Totals
	Deletes Totals // what the mirror would delete; files that are only overwritten do not count
	// Allowed is how many entries an operator lets this one comparison delete; zero: he said nothing. The caller forgets it
	// after a comparison that used it.
	Allowed int
}

// The rails. Below railEntries a person sees at a glance what happened, and the trash holds it. Half: a cleaned mailbox or
// an expired repository stays below it, a wrong or half-mounted directory is above it. A tenth of the bytes: names can
// outlive their content (a filesystem check that cuts files to nothing); small enough to let a dump or a video go. An empty
// source is refused sooner, but the last one or two small files of a directory may be deleted as any other, also while no session is there to see it.
const (
	railEntries = 20
	railFew     = 3
	railBytes   = 64 << 20
	railShrink  = 10
)

// Refusal is why a comparison must not go on. The mirror stays as it is.
type Refusal struct {
	Why string // one sentence, and what to do
	// Allow is what Situation.Allowed must at least be; zero: no operator's word is enough.
	Allow int
}

func (r *Refusal) Error() string { return r.Why }

// Check refuses what looks like a lost source rather than like work. A mirror that has nothing can lose nothing. The error is
// a *Refusal.
func (s Situation) Check() error {
	deletes := s.Deletes.Entries()
	allow := max(deletes, 1)
	switch {
	case s.Marker == Foreign:
		return &Refusal{Why: "the source has the marker of another set: check that the right disk is mounted there"}
	case s.Marker != Marked:
		return &Refusal{Why: "the source has no marker: it is not mounted, or not the directory that was mirrored; mount it, or mark it anew"}
	case s.Mirror.Entries() == 0 || s.Allowed >= allow:
		return nil
	case s.Source.Entries() == 0 && (s.Mirror.Entries() >= railFew || s.Mirror.Bytes >= railBytes):
		return &Refusal{Allow: allow, Why: fmt.Sprintf("the source is empty, the mirror has %d entries: check the source; if it was emptied on purpose, allow %d deletions once",
			s.Mirror.Entries(), allow)}
	case s.Mirror.Entries() >= railEntries && 2*deletes > s.Mirror.Entries():
		return &Refusal{Allow: allow, Why: fmt.Sprintf("%d of the mirror's %d entries would be deleted, more than half: check the source; if that is meant, allow %d deletions once",
			deletes, s.Mirror.Entries(), allow)}
	case s.Mirror.Entries() >= railEntries && s.Mirror.Bytes >= railBytes && s.Source.Bytes < s.Mirror.Bytes/railShrink:
		return &Refusal{Allow: allow, Why: fmt.Sprintf("the source has %d bytes, the mirror %d, more than ten times as many: check the source; if that is meant, allow %d deletions once",
			s.Source.Bytes, s.Mirror.Bytes, allow)}
	}
	return nil
}
