package bench

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestRouted(t *testing.T) {
	var asked [2]atomic.Int64
	r := &Routed{
		HTTP: HTTP{Bucket: "b", Timeout: 5 * time.Second},
		Node: func(key []byte) int { return int(key[len(key)-1]-'0') % 2 },
	}
	for i := range asked {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if place := int(q.URL.Path[len(q.URL.Path)-1]-'0') % 2; place != i {
				t.Errorf("node %d was asked for %s", i, q.URL.Path)
			}
			asked[i].Add(1)
			if q.Method == http.MethodPut {
				w.WriteHeader(http.StatusNoContent)
			}
		}))
		defer server.Close()
		r.Endpoints = append(r.Endpoints, server.URL)
	}
	conn, err := r.Dial(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"k1", "k2", "k3", "k4"} {
		_, putErr := conn.Put([]byte(key), []byte("v"), nil)
		a, err := conn.Get([]byte(key))
		if putErr != nil || err != nil || !a.Found {
			t.Errorf("%s: %v, %v", key, putErr, err)
		}
	}
	if err := conn.Close(); err != nil || asked[0].Load() != 4 || asked[1].Load() != 4 {
		t.Errorf("%v; %d and %d requests", err, asked[0].Load(), asked[1].Load())
	}
	r.Endpoints[1] = "http://127.0.0.1:1"
	if _, err := r.Dial(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a node that is not there: %v", err)
	}
}
