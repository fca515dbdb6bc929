package bench

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const page = `# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{to="a b}"} 3
calls_total{to="c"} 4 1700000000
calls_total_more 100
heap_bytes 1.5e+06
`

func TestScrape(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write([]byte(page))
	}))
	defer server.Close()
	got, err := Scrape(t.Context(), server.URL, server.URL)
	want := Metrics{`calls_total{to="a b}"}`: 6, `calls_total{to="c"}`: 8, "calls_total_more": 200, "heap_bytes": 3e6}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if sum := got.Sum("calls_total"); sum != 14 {
		t.Errorf("a sum of %v", sum)
	}
	if grown := got.Since(Metrics{"heap_bytes": 1e6}); grown["heap_bytes"] != 2e6 {
		t.Errorf("%v", grown)
	}
	if _, err := Scrape(t.Context(), server.URL+"/elsewhere"); err == nil {
		t.Error("a page that is not there was read")
	}
}

func TestParseMetricsErrors(t *testing.T) {
	for _, text := range []string{"name", "name ", `name{a="b"}`, "name one", "name{a=\"b\"} "} {
		if err := parseMetrics(strings.NewReader(text), Metrics{}); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}
