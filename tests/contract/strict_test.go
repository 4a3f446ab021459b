package contract

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// Strictness. DigitalOcean's schemas forbid no unknown members, and most of its envelopes require none, so that {}
// would pass for nearly every answer. Therefore each successful answer must, besides being valid,
//   - have every member that the schema declares for the object, except those in mayLack,
//   - have no member that the schema does not declare, except those in mayAdd,
//   - have every member that all of the description's own examples of that answer have at that place.
//
// Every answer must have the headers that the description names for it, although it requires none.

// The exceptions are keyed by the path of the object ("*" for any) and the member. Each must be needed: one that
// never was is reported.

// mayLack are members that the schema declares and the real API leaves out where they mean nothing.
var mayLack = map[string]string{
	"* gpu_info":        "only droplets and sizes with a GPU have it",
	"* imgages":         "the description's typing error for images",
	"* ip_address":      "of a domain: only in requests",
	"* last_tagged_uri": "nothing has the tag",
}

// mayAdd are members that the real API has and the description forgets.
var mayAdd = map[string]string{
	"account reserved_ip_limit": "in godo",
	"account volume_limit":      "in godo",
	"tag.resources images":      "spelled imgages in the description",
	"tags[].resources images":   "spelled imgages in the description",
	" action":                   "the schema of an image action forgets the envelope that its example has",
}

// wrongExamples are the paths of objects for which the description's examples are no measure.
var wrongExamples = map[string]string{
	"tag": "the example of GET /v2/tags/{tag_id} has the envelope twice",
}

// strictness is the check and the exceptions that it has used.
type strictness struct {
	used map[string]bool
}

// allows reports whether list has the member at the path, or anywhere.
func (st *strictness) allows(list map[string]string, at, member string) bool {
	for _, key := range []string{at + " " + member, "* " + member} {
		if _, ok := list[key]; ok {
			st.used[key] = true
			return true
		}
	}
	return false
}

// needless returns the exceptions that were never used.
func (st *strictness) needless() []string {
	var idle []string
	for _, list := range []map[string]string{mayLack, mayAdd, wrongExamples} {
		for key := range list {
			if !st.used[key] {
				idle = append(idle, key)
			}
		}
	}
	slices.Sort(idle)
	return idle
}

// headers checks that an answer has every header that is described for it.
func headers(op *openapi3.Operation, x exchange) error {
	ref := op.Responses.Status(x.status)
	if ref == nil {
		ref = op.Responses.Default()
	}
	if ref == nil {
		return nil // ValidateResponse has complained.
	}
	for _, name := range slices.Sorted(maps.Keys(ref.Value.Headers)) {
		if x.header.Get(name) == "" {
			return fmt.Errorf("answer lacks the header %s", name)
		}
	}
	return nil
}

// body checks the body of a successful answer.
func (st *strictness) body(op *openapi3.Operation, x exchange) error {
	if x.status >= 300 || len(x.answer) == 0 {
		return nil
	}
	ref := op.Responses.Status(x.status)
	if ref == nil {
		return nil // ValidateResponse has complained.
	}
	media := ref.Value.Content.Get("application/json")
	if media == nil || media.Schema == nil {
		return nil
	}
	var body any
	if err := json.Unmarshal(x.answer, &body); err != nil {
		return fmt.Errorf("answer is not JSON: %w", err)
	}
	var errs []error
	st.compare(body, []*openapi3.Schema{media.Schema.Value}, "", &errs)
	if examples := examplesOf(media); len(examples) > 0 {
		common := map[string]map[string]int{}
		objects := map[string]int{}
		for _, e := range examples {
			shape(e, "", common, objects)
		}
		st.likeExamples(body, "", common, objects, &errs)
	}
	return errors.Join(errs...)
}

// compare walks value along the schemas that describe it together.
func (st *strictness) compare(value any, schemas []*openapi3.Schema, at string, errs *[]error) {
	schemas = flatten(schemas, value)
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			st.compare(item, itemSchemas(schemas), at+"[]", errs)
		}
	case map[string]any:
		declared := properties(schemas)
		if len(declared) == 0 {
			return // A free-form object.
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			sub, ok := declared[name]
			if !ok {
				if !st.allows(mayAdd, at, name) {
					*errs = append(*errs, fmt.Errorf("%q has the member %q, which the description does not know", at, name))
				}
				continue
			}
			st.compare(v[name], sub, join(at, name), errs)
		}
		for _, name := range slices.Sorted(maps.Keys(declared)) {
			if _, ok := v[name]; !ok && !st.allows(mayLack, at, name) && !optionalPage(at, name) && !wrongEnvelope(at, v) {
				*errs = append(*errs, fmt.Errorf("%q lacks the member %q", at, name))
			}
		}
	}
}

// optionalPage: links name only the pages that there are.
func optionalPage(at, _ string) bool { return at == "links" || at == "links.pages" }

// wrongEnvelope: see mayAdd about image actions.
func wrongEnvelope(at string, v map[string]any) bool {
	_, only := v["action"]
	return at == "" && only
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// flatten resolves allOf, and of oneOf and anyOf the parts that value satisfies.
func flatten(schemas []*openapi3.Schema, value any) []*openapi3.Schema {
	var flat []*openapi3.Schema
	for _, s := range schemas {
		if s == nil {
			continue
		}
		flat = append(flat, s)
		for _, part := range s.AllOf {
			flat = append(flat, flatten([]*openapi3.Schema{part.Value}, value)...)
		}
		for _, part := range slices.Concat(s.OneOf, s.AnyOf) {
			if part.Value.VisitJSON(value) == nil {
				flat = append(flat, flatten([]*openapi3.Schema{part.Value}, value)...)
			}
		}
	}
	return flat
}

func itemSchemas(schemas []*openapi3.Schema) []*openapi3.Schema {
	var items []*openapi3.Schema
	for _, s := range schemas {
		if s.Items != nil {
			items = append(items, s.Items.Value)
		}
	}
	return items
}

func properties(schemas []*openapi3.Schema) map[string][]*openapi3.Schema {
	all := map[string][]*openapi3.Schema{}
	for _, s := range schemas {
		for name, p := range s.Properties {
			all[name] = append(all[name], p.Value)
		}
	}
	return all
}

// examplesOf collects the examples of an answer, which the description keeps in three places.
func examplesOf(media *openapi3.MediaType) []any {
	var all []any
	if media.Example != nil {
		all = append(all, media.Example)
	}
	for _, e := range media.Examples {
		all = append(all, e.Value.Value)
	}
	if media.Schema.Value.Example != nil {
		all = append(all, media.Schema.Value.Example)
	}
	for _, part := range media.Schema.Value.AllOf {
		if part.Value.Example != nil && part.Ref == "" {
			all = append(all, part.Value.Example)
		}
	}
	return all
}

// shape counts, for each path, the objects there and how many of them have each member.
func shape(value any, at string, members map[string]map[string]int, objects map[string]int) {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			shape(item, at+"[]", members, objects)
		}
	case map[string]any:
		objects[at]++
		if members[at] == nil {
			members[at] = map[string]int{}
		}
		for name, sub := range v {
			members[at][name]++
			shape(sub, join(at, name), members, objects)
		}
	}
}

// likeExamples checks that value has what all example objects at its path have.
func (st *strictness) likeExamples(value any, at string, members map[string]map[string]int, objects map[string]int, errs *[]error) {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			st.likeExamples(item, at+"[]", members, objects, errs)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(members[at])) {
			_, has := v[name]
			if has || members[at][name] < objects[at] || optionalPage(at, name) || st.allows(mayLack, at, name) {
				continue
			}
			if _, wrong := wrongExamples[at]; wrong {
				st.used[at] = true
			} else {
				*errs = append(*errs, fmt.Errorf("%q lacks the member %q, which every example has", at, name))
			}
		}
		for name, sub := range v {
			st.likeExamples(sub, join(at, name), members, objects, errs)
		}
	}
}

// tiny is a description of one endpoint, as lax as DigitalOcean's: nothing is required.
const tiny = `
openapi: 3.0.0
info: {title: tiny, version: "1"}
paths:
  /v2/things:
    get:
      operationId: things
      responses:
        "200":
          description: ok
          content:
            application/json:
              schema:
                type: object
                properties:
                  thing:
                    type: object
                    properties: {name: {type: string}, size: {type: integer}, owner: {type: string, nullable: true}}
              example: {thing: {name: a, size: 1, owner: null}}
`

// TestStrictCheckFindsWhatALaxSchemaLetsPass needs no file: it proves that the check itself can fail.
func TestStrictCheckFindsWhatALaxSchemaLetsPass(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData([]byte(tiny))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	d := newDescription(t, doc)
	answer := func(body string) exchange {
		return exchange{
			method: http.MethodGet, url: d.server + "/v2/things", requestHeader: http.Header{}, status: http.StatusOK,
			header: http.Header{"Content-Type": {"application/json"}}, answer: []byte(body),
		}
	}
	if err := d.check(answer(`{"thing": {"name": "a", "size": 1, "owner": null}}`)); err != nil {
		t.Errorf("a good answer: %v", err)
	}
	for body, want := range map[string]string{
		`{}`:                                  `lacks the member "thing"`,
		`{"thing": {"name": "a", "size": 1}}`: `lacks the member "owner"`,
		`{"thing": {"name": "a", "size": 1, "owner": "b", "extra": 1}}`: `has the member "extra"`,
		`{"thing": {"name": "a", "size": "1", "owner": null}}`:          `integer`,
		`{"things": {"name": "a", "size": 1, "owner": null}}`:           `has the member "things"`,
		`[]`: `object`,
	} {
		err := d.check(answer(body))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
	undescribed := answer(`{}`)
	undescribed.url = d.server + "/v2/other"
	if err := d.check(undescribed); err == nil {
		t.Error("an endpoint that is not described: not noticed")
	}
}
