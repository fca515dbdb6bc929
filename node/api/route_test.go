package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// methods are those that HTTP knows, and one that it does not.
var methods = []string{"GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"}

// adminOnly is written down here once more: a route that is added must be
// thought about.
var adminOnly = []string{
	"/metrics", "/replica", "/replica/", "/explain/", "/quarantine", "/quarantine/restore/", "/quarantine/discard/",
	"/repairs", "/repair", "/debug/pprof/",
}

// TestEveryRouteOnEveryPort tries each method on each route on both ports.
func TestEveryRouteOnEveryPort(t *testing.T) {
	n := start(t, new(scripted))
	for _, r := range routes {
		for _, p := range []port{dataPort, adminPort} {
			served := p == adminPort || !slices.Contains(adminOnly, r.path)
			if served != (r.ports&p != 0) {
				t.Errorf("%s on port %d: served=%v", r.path, p, !served)
			}
			for _, method := range methods {
				t.Run(fmt.Sprintf("%s %s on %d", method, r.path, p), func(t *testing.T) {
					checkRoute(t, n, r, p, method)
				})
			}
		}
	}
}

func checkRoute(t *testing.T, n *node, r route, p port, method string) {
	t.Helper()
	addr := map[port]string{dataPort: n.data, adminPort: n.admin}[p]
	a := do(t, addr, method, target(r.path, method), "")
	allowed := slices.ContainsFunc(r.verbs, func(v verb) bool { return v.method == method })
	switch {
	case r.ports&p == 0:
		if a.status != 404 || method != "HEAD" && a.error(t).Code != codeNoRoute {
			t.Errorf("out of reach, and answered %d %s", a.status, a.body)
		}
	case !allowed:
		if a.status != 405 || a.Header.Get("Allow") != r.methods() || method != "HEAD" && a.error(t).Code != codeMethod {
			t.Errorf("not allowed, and answered %d %v %s", a.status, a.Header, a.body)
		}
	case a.status/100 != 2:
		t.Errorf("%d %s", a.status, a.body)
	case method == "HEAD" && a.body != "":
		t.Errorf("a body for HEAD: %q", a.body)
	}
}

// target is one of the route that is answered well.
func target(path, method string) string {
	switch {
	case path == "/kv/" && method == "DELETE":
		return "/kv/b/k?overwrite=true"
	case path == "/kv/", path == "/replica/", path == "/explain/":
		return path + "b/k"
	case path == "/quarantine/restore/", path == "/quarantine/discard/":
		return path + "b/k?hash=0123456789abcdef"
	case path == "/replica":
		return "/replica?partition=0"
	}
	return path
}

// TestNoOtherPath: what looks like a route after tidying up is none.
func TestNoOtherPath(t *testing.T) {
	n := start(t, new(scripted))
	for _, path := range []string{
		"/", "//", "/kv", "//kv/b/k", "/./kv/b/k", "/x/../kv/b/k", "/%6bv/b/k", "/KV/b/k", "/livez/", "/%6civez", "/livez%00", "/livez;x",
		"/readyz/x", "/cluster/", "/metrics/", "/replicas", "/explain", "/debug/pprof", "/debug/", "/admin", "/index.html", "/kv%2fb/k",
	} {
		for _, addr := range []string{n.data, n.admin} {
			if a := do(t, addr, "GET", path, ""); a.status != 404 || a.error(t).Code != codeNoRoute {
				t.Errorf("%s: %d %s", path, a.status, a.body)
			}
		}
	}
	for _, path := range []string{"/kv/../livez", "/kv/b%2f..%2f..%2flivez", "/kv//livez", "/kv/%2e%2e/metrics"} {
		if a := n.do("GET", path, ""); a.status != 400 || !strings.Contains(a.body, "bucket") && !strings.Contains(a.body, "no key") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}
