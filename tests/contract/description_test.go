package contract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"understudy/sidecar/cloud/localcloud"
)

// descriptionVariable names the file with DigitalOcean's own description of its API.
const descriptionVariable = "UNDERSTUDY_DO_OPENAPI"

// TestExchangesMatchDigitalOceansDescription lets godo drive every endpoint and holds each request and each answer
// against DigitalOcean's OpenAPI description, strictly (see strictness). It is the one test that needs that file.
func TestExchangesMatchDigitalOceansDescription(t *testing.T) {
	file := os.Getenv(descriptionVariable)
	if file == "" {
		notice := t.Name() + " did not run: " + descriptionVariable + " is not set. It must name DigitalOcean's OpenAPI " +
			"description as one file: clone https://github.com/digitalocean/openapi, run `make bundle` there, and set the " +
			"variable to the bundled YAML file."
		t.Log(notice)
		fmt.Println(notice) // Also without -v: nobody should take a check that did not run for one that passed.
		return
	}
	d := describe(t, file)
	var all []exchange
	for _, ch := range chapters {
		t.Run("drive "+ch.name, func(t *testing.T) {
			a := open(t, nil)
			ch.drive(a)
			all = append(all, d.local(t, a.rec.exchanges())...)
		})
	}
	t.Run("each exchange", func(t *testing.T) {
		for _, x := range all {
			if err := d.check(x); err != nil {
				t.Errorf("%s %s -> %d: %v\nanswer: %.600s", x.method, x.url, x.status, err, x.answer)
			}
		}
	})
	t.Run("exceptions are needed", func(t *testing.T) {
		for _, key := range d.strict.needless() {
			t.Errorf("exception %q is never needed: take it off its list", key)
		}
	})
	t.Run("every operation", func(t *testing.T) { d.coverage(t, all) })
	t.Run("every scope", func(t *testing.T) { d.scopes(t) })
	t.Run("broken answers are found", func(t *testing.T) { d.notices(t, all) })
}

// description is DigitalOcean's description, ready to look requests up in.
type description struct {
	doc    *openapi3.T
	router routers.Router
	server string
	strict strictness
}

// describe reads the file. That it cannot be read is a failure, not a reason to pass.
func describe(t *testing.T, file string) *description {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile(file)
	if err != nil {
		t.Fatalf("%s names a description that cannot be read: %v", descriptionVariable, err)
	}
	return newDescription(t, doc)
}

func newDescription(t *testing.T, doc *openapi3.T) *description {
	t.Helper()
	amend(doc)
	d := &description{doc: doc, server: "http://cloud.test", strict: strictness{used: map[string]bool{}}}
	doc.Servers = openapi3.Servers{{URL: d.server}}
	var err error
	if d.router, err = gorillamux.NewRouter(doc); err != nil {
		t.Fatalf("router: %v", err)
	}
	return d
}

// amend corrects, in memory, what is wrong in the description itself; each is contradicted by DigitalOcean's own
// examples, its documentation or its clients.
func amend(doc *openapi3.T) {
	schema := func(name string) *openapi3.Schema {
		if doc.Components == nil || doc.Components.Schemas[name] == nil {
			return nil
		}
		return doc.Components.Schemas[name].Value
	}
	// The status of a droplet is "off", which YAML 1.1 reads as false where it is not quoted.
	if droplet := schema("droplet"); droplet != nil {
		status := droplet.Properties["status"].Value
		for i, v := range status.Enum {
			if v == false {
				status.Enum[i] = "off"
			}
		}
		droplet.Properties["next_backup_window"].Value.Nullable = true
	}
	// An address that nobody holds has "droplet": null.
	for _, name := range []string{"reserved_ip", "floating_ip"} {
		if ip := schema(name); ip != nil {
			ip.Properties["droplet"] = &openapi3.SchemaRef{Value: &openapi3.Schema{
				Nullable: true, AllOf: openapi3.SchemaRefs{{Ref: "#/components/schemas/droplet", Value: schema("droplet")}},
			}}
		}
	}
	// flags and tag are for CAA records alone, says the table of attributes in the description's text.
	for _, name := range []string{"domain_record_ns", "domain_record_srv", "domain_record_txt"} {
		if record := schema(name); record != nil {
			for _, part := range record.AllOf {
				part.Value.Required = slices.DeleteFunc(part.Value.Required, func(s string) bool { return s == "flags" || s == "tag" })
			}
		}
	}
}

// local rewrites the URLs of recorded exchanges to the description's server.
func (d *description) local(t *testing.T, all []exchange) []exchange {
	t.Helper()
	for i := range all {
		u, err := url.Parse(all[i].url)
		if err != nil {
			t.Fatal(err)
		}
		all[i].url = d.server + u.RequestURI()
	}
	return all
}

// find looks an exchange up: the request as it was, its route and its path parameters.
func (d *description) find(x exchange) (*http.Request, *routers.Route, map[string]string, error) {
	req := httptest.NewRequest(x.method, x.url, bytes.NewReader(x.request))
	req.Header = x.requestHeader.Clone()
	route, params, err := d.router.FindRoute(req)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("find %s %s in the description: %w", x.method, x.url, err)
	}
	return req, route, params, nil
}

// check holds one exchange against the description. Requests that were meant to be refused may be wrong.
func (d *description) check(x exchange) error {
	req, route, params, err := d.find(x)
	if err != nil {
		return err
	}
	options := &openapi3filter.Options{
		MultiError: true, IncludeResponseStatus: true, SkipSettingDefaults: true,
		AuthenticationFunc: func(_ context.Context, in *openapi3filter.AuthenticationInput) error {
			if !strings.HasPrefix(in.RequestValidationInput.Request.Header.Get("Authorization"), "Bearer ") {
				return errors.New("no bearer token")
			}
			return nil
		},
	}
	input := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route, Options: options}
	if x.status < 400 {
		if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
			return fmt.Errorf("request: %w", err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: input, Status: x.status, Header: x.header, Options: options}
	if err := openapi3filter.ValidateResponse(context.Background(), out.SetBodyBytes(x.answer)); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if err := headers(route.Operation, x); err != nil {
		return err
	}
	return d.strict.body(route.Operation, x)
}

// notOffered are the operations that this cloud does not have, and why. Patterns are path.Match's.
var notOffered = map[string]string{
	"DELETE /v2/droplets":                   "never to be asked for: one call destroys many",
	"POST /v2/droplets/actions":             "never to be asked for: one call acts on many",
	"* /v2/firewalls":                       "nothing here would enforce a firewall",
	"* /v2/firewalls/*":                     "nothing here would enforce a firewall",
	"* /v2/firewalls/*/*":                   "nothing here would enforce a firewall",
	"* /v2/droplets/*/firewalls":            "nothing here would enforce a firewall",
	"POST /v2/images":                       "images are made by `make image` or of a droplet",
	"POST /v2/vpcs":                         "there is one network",
	"PUT /v2/vpcs/*":                        "there is one network",
	"PATCH /v2/vpcs/*":                      "there is one network",
	"DELETE /v2/vpcs/*":                     "there is one network",
	"* /v2/vpcs/*/peerings":                 "there is one network",
	"* /v2/vpcs/*/peerings/*":               "there is one network",
	"* /v2/droplets/*/backups":              "there are no backups in the cloud",
	"* /v2/droplets/*/backups/*":            "there are no backups in the cloud",
	"* /v2/droplets/backups/*":              "there are no backups in the cloud",
	"* /v2/droplets/*/kernels":              "kernels are inside of images since 2017",
	"* /v2/droplets/*/neighbors":            "there is one host",
	"* /v2/droplets/*/neighbors_ids":        "there is one host",
	"* /v2/droplets/autoscale":              "replacement is this project's own work",
	"* /v2/droplets/autoscale/*":            "replacement is this project's own work",
	"* /v2/droplets/autoscale/*/*":          "replacement is this project's own work",
	"* /v2/droplets/*/destroy_with_*/*":     "never to be asked for: one call destroys many things",
	"* /v2/reserved_ipv6":                   "there is no IPv6",
	"* /v2/droplets/*/actions/by_reference": "not in godo",
}

// offeredPaths are the parts of DigitalOcean's API, of many more, that a cluster manager needs.
var offeredPaths = []string{
	"/v2/account", "/v2/actions", "/v2/domains", "/v2/droplets", "/v2/firewalls", "/v2/floating_ips", "/v2/images",
	"/v2/regions", "/v2/reserved_ips", "/v2/sizes", "/v2/snapshots", "/v2/tags", "/v2/vpcs",
}

// operations returns "METHOD /path" of each operation in the part of the API that concerns us.
func (d *description) operations() []string {
	var all []string
	for p, item := range d.doc.Paths.Map() {
		concerns := slices.ContainsFunc(offeredPaths, func(base string) bool { return p == base || strings.HasPrefix(p, base+"/") })
		for method := range item.Operations() {
			if concerns {
				all = append(all, method+" "+p)
			}
		}
	}
	slices.Sort(all)
	return all
}

// offered reports whether an operation is one that the cloud has.
func offered(operation string) bool {
	method, p, _ := strings.Cut(operation, " ")
	for pattern := range notOffered {
		m, glob, _ := strings.Cut(pattern, " ")
		if ok, err := path.Match(glob, p); err == nil && ok && (m == "*" || m == method) {
			return false
		}
	}
	return true
}

// coverage checks that every operation was carried out with success at least once, or stands on the list of those
// that the cloud does not have.
func (d *description) coverage(t *testing.T, all []exchange) {
	done := map[string]bool{}
	for _, x := range all {
		_, route, _, err := d.find(x)
		if err == nil && x.status < 300 {
			done[x.method+" "+route.Path] = true
		}
	}
	for _, op := range d.operations() {
		if offered(op) && !done[op] {
			t.Errorf("%s: never carried out; drive it or put it on the list of what is not offered", op)
		}
		if !offered(op) && done[op] {
			t.Errorf("%s: stands on the list of what is not offered, and was carried out", op)
		}
	}
}

// scopes calls every operation with a token that has no scope at all, which must be refused, and with tokens that
// have exactly what the description asks for, one of which must be let through.
func (d *description) scopes(t *testing.T) {
	none := "dop_v1_none"
	granted := map[string][]string{none: {}}
	alternatives := map[string][]string{} // operation -> tokens
	for _, op := range d.operations() {
		method, p, _ := strings.Cut(op, " ")
		for i, requirement := range *d.doc.Paths.Value(p).GetOperation(method).Security {
			tok := fmt.Sprintf("dop_v1_%d_%s", i, strings.ReplaceAll(op, " ", "_"))
			granted[tok] = requirement["bearer_auth"]
			alternatives[op] = append(alternatives[op], tok)
		}
	}
	a := open(t, func(o *localcloud.Options) { o.Scoped, o.Rate = granted, localcloud.RateLimit{} })
	call := func(op, tok string) int {
		method, p, _ := strings.Cut(op, " ")
		req := httptest.NewRequest(method, placeholders(p), strings.NewReader("{}"))
		req.Header.Set("Authorization", "Bearer "+tok)
		w := httptest.NewRecorder()
		a.server.API().ServeHTTP(w, req)
		return w.Code
	}
	for op, tokens := range alternatives {
		if !offered(op) {
			continue
		}
		if got := call(op, none); got != http.StatusForbidden {
			t.Errorf("%s without scopes: got %d, want 403", op, got)
		}
		if !slices.ContainsFunc(tokens, func(tok string) bool { return call(op, tok) != http.StatusForbidden }) {
			t.Errorf("%s: got 403 for every set of scopes in the description", op)
		}
	}
}

// placeholders fills a path template with values that no resource has.
func placeholders(template string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(template, "/") {
		if strings.HasPrefix(part, "{") {
			part = "1"
		}
		b.WriteString("/" + part)
	}
	return strings.TrimPrefix(b.String(), "/")
}

// notices breaks good answers in ways that a weak check would let pass, and wants each to be found.
func (d *description) notices(t *testing.T, all []exchange) {
	i := slices.IndexFunc(all, func(x exchange) bool {
		return x.method == http.MethodGet && strings.Contains(x.url, "/v2/droplets/") && bytes.Contains(x.answer, []byte(`{"droplet":{`))
	})
	if i < 0 {
		t.Fatal("no droplet was ever read")
	}
	good := all[i]
	if err := d.check(good); err != nil {
		t.Fatalf("the good answer: %v", err)
	}
	replace := func(old, new string) func(*exchange) {
		return func(x *exchange) { x.answer = bytes.Replace(x.answer, []byte(old), []byte(new), 1) }
	}
	broken := map[string]func(*exchange){
		"empty object":        func(x *exchange) { x.answer = []byte(`{}`) },
		"other envelope":      replace(`"droplet":`, `"machine":`),
		"unknown member":      replace(`"vcpus":`, `"cores":8,"vcpus":`),
		"required one absent": replace(`"networks":`, `"nets":`),
		"optional one absent": replace(`"disk_info":`, `"disks":`),
		"nested one absent":   replace(`"netmask":`, `"mask":`),
		"wrong type":          replace(`"vcpus":1`, `"vcpus":"1"`),
		"status unknown":      replace(`"status":"active"`, `"status":"running"`),
		"no rate limit":       func(x *exchange) { x.header.Del("Ratelimit-Limit") },
		"not JSON":            func(x *exchange) { x.answer = []byte(`<html>`) },
		"other content type":  func(x *exchange) { x.header.Set("Content-Type", "text/plain") },
		"undescribed status":  func(x *exchange) { x.status = http.StatusCreated },
		"bad request":         func(x *exchange) { x.url += "?per_page=201"; x.requestHeader.Del("Authorization") },
	}
	for name, spoil := range broken {
		x := good
		x.header, x.requestHeader = good.header.Clone(), good.requestHeader.Clone()
		spoil(&x)
		if x.status == good.status && bytes.Equal(x.answer, good.answer) && len(x.header) == len(good.header) &&
			x.header.Get("Content-Type") == good.header.Get("Content-Type") && x.url == good.url {
			t.Errorf("%s: nothing was spoiled, the test is out of date", name)
		}
		if err := d.check(x); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}
