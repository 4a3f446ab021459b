package dns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
)

var errBadWeather = errors.New("bad weather")

// list is a provider's records API in memory, which can fail before and after it does what it is asked, and show a list that
// lacks entries. It notices when a name that had addresses has none.
type list struct {
	mu      sync.Mutex
	next    int
	entries []cloud.Entry
	had     map[string]bool // names that have had an address
	emptied []string
	posts   int
	// weather is drawn for each request: 0 fine, 1 fails before, 2 fails after, 3 leaves out an entry of a list. Nil: fine.
	weather func() int
}

func newList(records ...cluster.Record) *list {
	l := &list{had: map[string]bool{}}
	for _, r := range records {
		l.add(r, 30*time.Minute)
	}
	return l
}

func (l *list) add(r cluster.Record, ttl time.Duration) cloud.Entry {
	l.next++
	e := cloud.Entry{ID: strconv.Itoa(l.next), Record: r, TTL: ttl}
	l.entries = append(l.entries, e)
	l.look()
	return e
}

// look notes names that have lost their last address.
func (l *list) look() {
	now := map[string]bool{}
	for _, e := range l.entries {
		now[kind(e.Record)], l.had[kind(e.Record)] = true, true
	}
	for k := range l.had {
		if !now[k] {
			l.emptied = append(l.emptied, k)
		}
	}
}

func (l *list) do(ctx context.Context, f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	w := 0
	if l.weather != nil {
		w = l.weather()
	}
	if w == 1 {
		return errBadWeather
	}
	err := f()
	l.look()
	if w == 2 {
		return errBadWeather
	}
	return err
}

func (l *list) List(ctx context.Context) (all []cloud.Entry, err error) {
	err = l.do(ctx, func() error { all = slices.Clone(l.entries); return nil })
	if l.weather != nil && len(all) > 0 && l.weather() == 3 {
		all = slices.Delete(all, len(all)/2, len(all)/2+1)
	}
	return all, err
}

func (l *list) Create(ctx context.Context, r cluster.Record, ttl time.Duration) (e cloud.Entry, err error) {
	err = l.do(ctx, func() error { l.posts++; e = l.add(r, ttl); return nil })
	return e, err
}

func (l *list) find(id string) int {
	return slices.IndexFunc(l.entries, func(e cloud.Entry) bool { return e.ID == id })
}

func (l *list) Update(ctx context.Context, e cloud.Entry) error {
	return l.do(ctx, func() error {
		i := l.find(e.ID)
		if i < 0 {
			return cloud.ErrGone
		}
		if l.entries[i].Type != e.Type || l.entries[i].Name != e.Name {
			panic(fmt.Sprintf("%v is to become %v", l.entries[i], e))
		}
		l.entries[i] = e
		return nil
	})
}

func (l *list) Delete(ctx context.Context, id string) error {
	return l.do(ctx, func() error {
		if i := l.find(id); i >= 0 {
			l.entries = slices.Delete(l.entries, i, i+1)
		}
		return nil
	})
}

func (l *list) records() []cluster.Record {
	var all []cluster.Record
	for _, e := range l.entries {
		all = append(all, e.Record)
	}
	slices.SortFunc(all, compare)
	return all
}

func a(name string, last int) cluster.Record {
	return cluster.Record{Name: name, Type: "A", Value: fmt.Sprintf("203.0.113.%d", last)}
}

func aaaa(name string, last int) cluster.Record {
	return cluster.Record{Name: name, Type: "AAAA", Value: fmt.Sprintf("2001:db8::%d", last)}
}

func mx(name string, pref int, target string) cluster.Record {
	return cluster.Record{Name: name, Type: "MX", Value: target, Pref: pref}
}

// wanting owns the names that it wants something of.
func wanting(want ...cluster.Record) Change {
	c := Change{Epoch: 1, Want: want}
	for _, r := range want {
		if !slices.Contains(c.Own, r.Name) {
			c.Own = append(c.Own, r.Name)
		}
	}
	return c
}

func recordsZone(t testing.TB, l *list, own ...string) *Records {
	t.Helper()
	z, err := NewRecords(RecordsConfig{Records: l, Own: own})
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestRecordsEndAsWanted(t *testing.T) {
	cases := map[string]struct {
		have, want, then []cluster.Record
		posts            int
	}{
		"nothing there":            {nil, []cluster.Record{a("www", 1)}, []cluster.Record{a("www", 1)}, 1},
		"moved by overwriting":     {[]cluster.Record{a("www", 1)}, []cluster.Record{a("www", 2)}, []cluster.Record{a("www", 2)}, 0},
		"one of two replaced":      {[]cluster.Record{a("web", 1), a("web", 2)}, []cluster.Record{a("web", 2), a("web", 3)}, []cluster.Record{a("web", 2), a("web", 3)}, 0},
		"one more":                 {[]cluster.Record{a("web", 1)}, []cluster.Record{a("web", 1), a("web", 2)}, []cluster.Record{a("web", 1), a("web", 2)}, 1},
		"one less":                 {[]cluster.Record{a("web", 1), a("web", 2)}, []cluster.Record{a("web", 2)}, []cluster.Record{a("web", 2)}, 0},
		"duplicates":               {[]cluster.Record{a("www", 1), a("www", 1), a("www", 1)}, []cluster.Record{a("www", 1)}, []cluster.Record{a("www", 1)}, 0},
		"another family goes":      {[]cluster.Record{aaaa("www", 1)}, []cluster.Record{a("www", 1)}, []cluster.Record{a("www", 1)}, 1},
		"foreign mail stays":       {[]cluster.Record{mx("@", 5, "elsewhere.example.")}, []cluster.Record{a("@", 1)}, []cluster.Record{a("@", 1), mx("@", 5, "elsewhere.example.")}, 1},
		"our mail replaces it":     {[]cluster.Record{mx("@", 5, "elsewhere.example.")}, []cluster.Record{mx("@", 10, "mail.blog.example.")}, []cluster.Record{mx("@", 10, "mail.blog.example.")}, 0},
		"addresses beside mail":    {[]cluster.Record{a("@", 1)}, []cluster.Record{mx("@", 10, "mail.blog.example.")}, []cluster.Record{a("@", 1), mx("@", 10, "mail.blog.example.")}, 1},
		"other names stay":         {[]cluster.Record{a("shop", 9)}, []cluster.Record{a("www", 1)}, []cluster.Record{a("shop", 9), a("www", 1)}, 1},
		"as it is, with right TTL": {[]cluster.Record{a("www", 1)}, []cluster.Record{a("www", 1)}, []cluster.Record{a("www", 1)}, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l := newList(c.have...)
			if err := recordsZone(t, l).Update(t.Context(), wanting(c.want...)); err != nil {
				t.Fatal(err)
			}
			if got := l.records(); !slices.Equal(got, c.then) || len(l.emptied) > 0 || l.posts != c.posts {
				t.Errorf("got %v after %d POSTs, emptied %v, want %v after %d, nothing emptied", got, l.posts, l.emptied, c.then, c.posts)
			}
			for _, e := range l.entries {
				if slices.Contains(c.want, e.Record) && e.TTL != DefaultTTL {
					t.Errorf("%v: got TTL %v, want %v", e.Record, e.TTL, DefaultTTL)
				}
			}
		})
	}
}

func TestNameOfWhichNothingIsWantedStays(t *testing.T) {
	l := newList(a("www", 1), a("web", 2))
	c := wanting(a("www", 3))
	c.Own = append(c.Own, "web")
	if err := recordsZone(t, l).Update(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got := l.records(); !slices.Equal(got, []cluster.Record{a("web", 2), a("www", 3)}) {
		t.Errorf("got %v, want web untouched", got)
	}
}

func TestFailedListIsNotAnEmptyZone(t *testing.T) {
	l := newList(a("www", 1))
	l.weather = func() int { return 1 }
	z := recordsZone(t, l, "www")
	if got, err := z.Read(t.Context()); !errors.Is(err, errBadWeather) {
		t.Errorf("read: got %v, %v, want the error", got, err)
	}
	if err := z.Update(t.Context(), wanting(a("www", 2))); !errors.Is(err, errBadWeather) {
		t.Errorf("update: got %v, want the error", err)
	}
	if got := l.records(); !slices.Equal(got, []cluster.Record{a("www", 1)}) {
		t.Errorf("got %v, want it untouched", got)
	}
}

func TestReadShowsEachRecordOfOursOnce(t *testing.T) {
	l := newList(a("www", 2), a("www", 1), a("www", 2), a("shop", 9), mx("www", 5, "elsewhere.example."))
	got, err := recordsZone(t, l, "www", "web").Read(t.Context())
	want := []cluster.Record{a("www", 1), a("www", 2), mx("www", 5, "elsewhere.example.")}
	if err != nil || !slices.Equal(got.Records, want) || got.Epoch != 0 || got.Sent == 0 {
		t.Errorf("got %+v, %v, want %v without an epoch", got, err, want)
	}
}

func drawRecords(t *rapid.T, label string) []cluster.Record {
	one := rapid.Custom(func(t *rapid.T) cluster.Record {
		name := rapid.SampledFrom([]string{"@", "www", "web"}).Draw(t, "name")
		switch n := rapid.IntRange(1, 3).Draw(t, "value"); rapid.SampledFrom([]string{"A", "A", "A", "AAAA", "MX"}).Draw(t, "type") {
		case "A":
			return a(name, n)
		case "AAAA":
			return aaaa(name, n)
		default:
			return mx(name, n, "mail.blog.example.")
		}
	})
	return rapid.SliceOfN(one, 0, 6).Draw(t, label)
}

// after is what the zone must say in the end: what is wanted, and of other kinds what was there.
func after(have, want []cluster.Record) []cluster.Record {
	gone := stale(have, want)
	all := slices.DeleteFunc(slices.Clone(have), func(r cluster.Record) bool { return slices.Contains(gone, r) })
	return sorted(append(all, want...))
}

// TestRecordsConvergeInAnyWeather lets several writers of the same wish write at once while requests fail before and after
// they took effect and lists lack entries. No name that had an address ever has none; and once the weather is fine the zone
// says what is wanted, once.
func TestRecordsConvergeInAnyWeather(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawRecords(t, "have"), sorted(drawRecords(t, "want"))
		storm := rapid.SliceOfN(rapid.IntRange(0, 4), 0, 60).Draw(t, "storm")
		l := newList(have...)
		l.weather = func() int {
			if len(storm) == 0 {
				return 0
			}
			w := storm[0]
			storm = storm[1:]
			return w
		}
		z, err := NewRecords(RecordsConfig{Records: l})
		if err != nil {
			t.Fatal(err)
		}
		c := wanting(want...)
		for range 80 {
			if err = z.Update(context.Background(), c); err == nil && len(storm) == 0 {
				break
			}
		}
		if err = z.Update(context.Background(), c); err != nil {
			t.Fatalf("in fine weather: %v", err)
		}
		got, entries := sorted(l.records()), len(l.entries)
		wantAll := after(sorted(slices.Clone(have)), want)
		if !slices.Equal(got, wantAll) {
			t.Fatalf("got %v, want %v", got, wantAll)
		}
		for _, w := range want {
			n := 0
			for _, e := range l.entries {
				if e.Record == w {
					n++
				}
			}
			if n != 1 {
				t.Fatalf("%v is there %d times of %d entries", w, n, entries)
			}
		}
		if len(l.emptied) > 0 {
			t.Fatalf("without an address in between: %v", l.emptied)
		}
	})
}

// TestWritersOfDifferentWishesNeverEmptyAName steps two writers through every request in an order that is drawn.
func TestWritersOfDifferentWishesNeverEmptyAName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have := rapid.SliceOfN(rapid.IntRange(1, 4), 0, 4).Draw(t, "have")
		l := newList()
		for _, n := range have {
			l.add(a("www", n), DefaultTTL)
		}
		var writers []*stepper
		for i := range 2 {
			var want []cluster.Record
			for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(1, 4), 1, 2, rapid.ID).Draw(t, fmt.Sprintf("want %d", i)) {
				want = append(want, a("www", n))
			}
			writers = append(writers, newStepper(l, wanting(want...)))
		}
		for len(writers) > 0 {
			i := rapid.IntRange(0, len(writers)-1).Draw(t, "next")
			if !writers[i].step() {
				writers = slices.Delete(writers, i, i+1)
			}
		}
		if len(l.emptied) > 0 {
			t.Fatalf("without an address: %v; in the end %v", l.emptied, l.records())
		}
	})
}

// stepper is a writer that does one request at each step.
type stepper struct {
	*list
	turn, done chan struct{}
	over       chan struct{}
}

func newStepper(l *list, c Change) *stepper {
	s := &stepper{list: l, turn: make(chan struct{}), done: make(chan struct{}), over: make(chan struct{})}
	z, err := NewRecords(RecordsConfig{Records: s})
	if err != nil {
		panic(err)
	}
	go func() { // step waits for it
		defer close(s.over)
		_ = z.Update(context.Background(), c) // that it may lose is what is tested
	}()
	return s
}

// step lets one request pass. It returns false when the writer has ended.
func (s *stepper) step() bool {
	select {
	case s.turn <- struct{}{}:
		<-s.done
		return true
	case <-s.over:
		return false
	}
}

func (s *stepper) wait(f func()) {
	<-s.turn
	f()
	s.done <- struct{}{}
}

func (s *stepper) List(ctx context.Context) (all []cloud.Entry, err error) {
	s.wait(func() { all, err = s.list.List(ctx) })
	return all, err
}

func (s *stepper) Create(ctx context.Context, r cluster.Record, ttl time.Duration) (e cloud.Entry, err error) {
	s.wait(func() { e, err = s.list.Create(ctx, r, ttl) })
	return e, err
}

func (s *stepper) Update(ctx context.Context, e cloud.Entry) (err error) {
	s.wait(func() { err = s.list.Update(ctx, e) })
	return err
}

func (s *stepper) Delete(ctx context.Context, id string) (err error) {
	s.wait(func() { err = s.list.Delete(ctx, id) })
	return err
}

func TestNothingIsRemovedWhileAWantedRecordIsNotListed(t *testing.T) {
	listed := []cloud.Entry{{ID: "1", Record: a("web", 1)}, {ID: "2", Record: a("web", 3)}}
	if got, err := extras(listed, []cluster.Record{a("web", 1), a("web", 2)}); !errors.Is(err, ErrRaced) || got != nil {
		t.Errorf("got %v, %v, want ErrRaced", got, err)
	}
}
