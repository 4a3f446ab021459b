package progress

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// full is a record with every key. Whoever changes the text below breaks readers in the field.
const full = `{"version":1,"machine":{"machine_id":"ab12","droplet_id":"7"},"node":"web1","role":"web","commit":"c0ffee",` +
	`"attempt":2,"phase":"needs","message":"waiting for package blog","since":"2026-01-02T03:04:05Z",` +
	`"failed":{"code":35,"error":"never came","next":"look at role repo","at":"2026-01-02T03:05:05Z"},` +
	`"steps":[{"name":"hostname","started":"2026-01-02T03:04:00Z","finished":"2026-01-02T03:04:09Z","took":"25ms","detail":"web1",` +
	`"attempt":1,"tries":3,"boot_id":"b"}],"done":null,"usage":{"bootstrap":{"took":"1s","cpu_seconds":0.1,"max_rss_bytes":17}}}`

func TestKeysOfTheRecordAreAPromise(t *testing.T) {
	r, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != full {
		t.Errorf("got  %s\nwant %s", again, full)
	}
	step, ok := r.Step(Hostname)
	if !ok || step.Duration() != 25*time.Millisecond {
		t.Errorf("got %v, %v; want the duration that the node measured, not the difference of its clock's readings", step.Duration(), ok)
	}
	if step.Took = ""; step.Duration() != 9*time.Second {
		t.Errorf("without it: got %v, want 9s", step.Duration())
	}
	if got, want := r.Line(r.Since), "failed (35): never came; look at role repo"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	r.Failed = nil
	if got, want := r.Line(r.Since.Add(1200*time.Millisecond)), "needs: waiting for package blog, 1.2s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if r.Finished() || !r.Began().Equal(step.Started) {
		t.Errorf("got finished %v, began %v", r.Finished(), r.Began())
	}
}

func TestUnreadableRecordIsPutAside(t *testing.T) {
	for _, bad := range []string{"", "{", full[:len(full)/2], `{"version":2}`, `{"version":1,"attempt":-1}`, "[]"} {
		path := filepath.Join(t.TempDir(), "bootstrap.json")
		if err := os.WriteFile(path, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		r, aside, err := Load(path)
		if err != nil || aside == "" || r.Version != Version || len(r.Steps) != 0 {
			t.Errorf("%q: got %+v, %q, %v; want an empty record and where the old one is", bad, r, aside, err)
		}
		if kept, err := os.ReadFile(aside); err != nil || string(kept) != bad {
			t.Errorf("%q was not kept: %q, %v", bad, kept, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q still stands in its place", bad)
		}
	}
	r, aside, err := Load(filepath.Join(t.TempDir(), "absent"))
	if err != nil || aside != "" || r.Version != Version {
		t.Errorf("no record: got %+v, %q, %v; want an empty one", r, aside, err)
	}
}

func TestStepIsRecordedOnce(t *testing.T) {
	var r Record
	r.Add(Step{Name: Join, Attempt: 1})
	r.Add(Step{Name: Control, Attempt: 1})
	r.Add(Step{Name: Join, Attempt: 2})
	if s, _ := r.Step(Join); len(r.Steps) != 2 || s.Attempt != 2 {
		t.Errorf("got %+v, want two steps, join of attempt 2", r.Steps)
	}
	r.Forget(Join, Control)
	if len(r.Steps) != 0 {
		t.Errorf("got %+v, want none", r.Steps)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(strings.Repeat("[", 100)))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err == nil && r.Version != Version {
			t.Errorf("took version %d", r.Version)
		}
		_, _, _ = r.Began(), r.Finished(), r.Line(time.Now()) // none may panic
	})
}
