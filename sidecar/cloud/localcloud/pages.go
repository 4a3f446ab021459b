package localcloud

import (
	"net/http"
	"net/url"
	"strconv"
)

// Bounds of per_page, from DigitalOcean's description. A value outside is moved to the nearest bound.
const (
	defaultPage = 20
	maxPage     = 200
)

// page answers a list request with the page it asks for: {key: items, links, meta}. Faults that make lists lie about
// their length act here.
func page[T any](s *Server, c *call, key string, items []T) reply {
	items = omit(s, c, items)
	number := atLeastOne(c.query("page"), 1)
	size := min(atLeastOne(c.query("per_page"), defaultPage), maxPage)
	last := max((len(items)+size-1)/size, 1)
	from := min((number-1)*size, len(items))
	shown := items[from:min(from+size, len(items))]
	if shown == nil {
		shown = []T{}
	}
	return reply{status: http.StatusOK, body: map[string]any{
		key:     shown,
		"links": pageLinks(c, number, last),
		"meta":  map[string]int{"total": len(items)},
	}}
}

// omit leaves out what PartialList and EmptyList say.
func omit[T any](s *Server, c *call, items []T) []T {
	if c.fx.empty {
		return nil
	}
	if c.fx.omit <= 0 || len(items) == 0 {
		return items
	}
	kept := make([]T, 0, len(items))
	for _, it := range items {
		if s.faults.float() >= c.fx.omit {
			kept = append(kept, it)
		}
	}
	if len(kept) == len(items) {
		kept = kept[1:]
	}
	return kept
}

// pageLinks names the neighbours of a page; a list of one page has no links at all.
func pageLinks(c *call, number, last int) map[string]any {
	pages := map[string]string{}
	if number > 1 {
		pages["first"] = c.pageURL(1)
		pages["prev"] = c.pageURL(min(number-1, last))
	}
	if number < last {
		pages["next"] = c.pageURL(number + 1)
		pages["last"] = c.pageURL(last)
	}
	if len(pages) == 0 {
		return map[string]any{}
	}
	return map[string]any{"pages": pages}
}

func (c *call) pageURL(number int) string {
	q := url.Values{}
	for k, v := range c.r.URL.Query() {
		q[k] = v
	}
	q.Set("page", strconv.Itoa(number))
	return c.href(c.r.URL.Path + "?" + q.Encode())
}

// atLeastOne reads a positive number; anything else is the fallback.
func atLeastOne(text string, fallback int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return fallback
	}
	return n
}
