package admin

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"
)

func TestAnOrderOfChaosReachesTheBackendToTheLetter(t *testing.T) {
	b := newBackend()
	c := onSocket(t, b)
	order := Destroy{Node: "web2", Machine: "1004", Seed: 1<<64 - 1, Apart: Duration(time.Hour), DryRun: true}
	done, err := c.Destroy(t.Context(), order)
	if want := (Destroyed{Node: "web2", Machine: "1004", DryRun: true}); err != nil || done != want {
		t.Errorf("got %+v, %v; want %+v", done, err, want)
	}
	if !slices.Equal(b.gone, []Destroy{order}) {
		t.Errorf("ordered %+v, want %+v", b.gone, order)
	}
}

// By the status an asker tells what has not happened from what may have.
func TestARefusalIsNoFailure(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
	}{{Refusal("web1 is being replaced"), http.StatusConflict}, {errors.New("web1 is being replaced"), http.StatusBadGateway}} {
		b := newBackend()
		b.err = tc.err
		_, err := onSocket(t, b).Destroy(t.Context(), Destroy{Node: "web2", Machine: "1004"})
		var p *Problem
		if !errors.As(err, &p) || p.Status != tc.status || p.Detail != "web1 is being replaced" {
			t.Errorf("got %#v, want %d", err, tc.status)
		}
	}
}
