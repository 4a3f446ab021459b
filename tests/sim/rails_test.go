package sim

import (
	"reflect"
	"testing"

	"understudy/sidecar/decide"
)

func TestWithoutAnyOneRailHarmIsSeen(t *testing.T) {
	for _, r := range Rails() {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			harm := r.Without()
			if harm == "" {
				t.Fatalf("no harm in %d episodes without this rail; then what is it for?", r.seeds)
			}
			t.Log(harm)
			if harm := r.With(); harm != "" {
				t.Errorf("the rail does not prevent it: %s", harm)
			}
		})
	}
}

func TestEveryRailIsInTheTable(t *testing.T) {
	var off decide.Rails
	all := reflect.ValueOf(&off).Elem()
	for i := range all.NumField() {
		for _, r := range Rails() {
			if reflect.ValueOf(r.off).Field(i).Bool() {
				all.Field(i).SetBool(true)
			}
		}
		if !all.Field(i).Bool() {
			t.Errorf("no circumstances need %s", all.Type().Field(i).Name)
		}
	}
}
