package localcloud_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/digitalocean/godo"

	"understudy/sidecar/cloud/localcloud"
)

// bearer is what godo needs to send a token.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

// A create that is carried out and answered with 502: the client must look before it tries again.
func Example() {
	o := localcloud.Defaults()
	o.Token = "dop_v1_example"
	cloud := localcloud.New(slog.New(slog.DiscardHandler), &localcloud.Memory{}, o)
	api := httptest.NewServer(cloud.API())
	ctx := context.Background()
	defer func() {
		api.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		_ = cloud.Close(ctx)
	}()
	do, err := godo.New(&http.Client{Transport: bearer(o.Token)}, godo.SetBaseURL(api.URL+"/"))
	if err != nil {
		fmt.Println(err)
		return
	}

	cloud.Inject(localcloud.Fault{Kind: localcloud.LostAnswer, Times: 1})
	_, resp, _ := do.Droplets.Create(ctx, &godo.DropletCreateRequest{
		Name: "web1", Region: "lon1", Size: "s-1vcpu-1gb", Image: godo.DropletCreateImage{ID: 7555620}, Tags: []string{"intent-4711"},
	})
	fmt.Println("create:", resp.StatusCode)
	found, _, _ := do.Droplets.ListByTag(ctx, "intent-4711", nil)
	fmt.Println("there all the same:", len(found), found[0].Name)
	// Output:
	// create: 502
	// there all the same: 1 web1
}
