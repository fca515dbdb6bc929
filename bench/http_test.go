package bench

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// speak runs one exchange against a server that notes what it was asked.
func speak(
	t *testing.T, h *HTTP, status int, header map[string]string, body string, do func(Conn) (Answer, error),
) (asked string, a Answer, err error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, _ := io.ReadAll(r.Body)
		asked = strings.Join([]string{
			r.Method, r.RequestURI, r.Header.Get(headerContext), r.Header.Get(headerWriteID), string(value),
		}, "|")
		for name, v := range header {
			w.Header().Set(name, v)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	defer server.Close()
	h.Endpoints, h.Bucket, h.Timeout = []string{"http://127.0.0.1:1", server.URL}, "b", time.Second
	c, err := h.Dial(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err = do(c)
	a.Token = append([]byte(nil), a.Token...)
	return asked, a, err
}

func TestHTTP(t *testing.T) {
	get := func(c Conn) (Answer, error) { return c.Get([]byte("k1")) }
	put := func(c Conn) (Answer, error) { return c.Put([]byte("k1"), []byte("value"), []byte("tok")) }
	query := HTTP{Query: url.Values{"r": {"2"}}, WriteQuery: url.Values{"sync": {"true"}}, WriteID: func() string { return "id" }}
	for name, tt := range map[string]struct {
		h      HTTP
		do     func(Conn) (Answer, error)
		status int
		header map[string]string
		body   string
		asked  string
		want   Answer
		err    string
	}{
		"get": {
			do: get, status: 200, header: map[string]string{headerContext: "tok2"}, body: "value",
			asked: "GET|/kv/b/k1|||", want: Answer{Found: true, Siblings: 1, Token: []byte("tok2")},
		},
		"get of nothing":   {do: get, status: 404, asked: "GET|/kv/b/k1|||", want: Answer{Siblings: 1}},
		"get with a query": {h: query, do: get, status: 200, asked: "GET|/kv/b/k1?r=2|||", want: Answer{Found: true, Siblings: 1}},
		"get of siblings": {
			do: get, status: 300, header: map[string]string{headerSiblings: "3"},
			asked: "GET|/kv/b/k1|||", want: Answer{Found: true, Siblings: 3},
		},
		"put": {do: put, status: 204, asked: "PUT|/kv/b/k1|tok||value", want: Answer{Found: true, Siblings: 1}},
		"put with all there": {
			h: query, do: put, status: 204,
			asked: "PUT|/kv/b/k1?r=2&sync=true|tok|id|value", want: Answer{Found: true, Siblings: 1},
		},
		"refused": {
			do: put, status: 503, body: `{"code":"overloaded"}`,
			asked: "PUT|/kv/b/k1|tok||value", err: "answered 503 overloaded",
		},
		"refused by others": {do: get, status: 500, body: `oops`, asked: "GET|/kv/b/k1|||", err: "answered 500"},
	} {
		asked, got, err := speak(t, &tt.h, tt.status, tt.header, tt.body, tt.do)
		if asked != tt.asked {
			t.Errorf("%s: asked %q, want %q", name, asked, tt.asked)
		}
		if tt.err != "" {
			if _, ok := errors.AsType[*StatusError](err); !ok || err.Error() != tt.err {
				t.Errorf("%s: error %v, want %q", name, err, tt.err)
			}
			continue
		}
		if err != nil || got.Found != tt.want.Found || got.Siblings != tt.want.Siblings || string(got.Token) != string(tt.want.Token) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, tt.want)
		}
	}
}

func TestHTTPEndsWithItsServer(t *testing.T) {
	h := &HTTP{}
	_, _, err := speak(t, h, 200, map[string]string{"Connection": "close"}, "", func(c Conn) (Answer, error) { return c.Get([]byte("k")) })
	if !errors.Is(err, errClosing) {
		t.Errorf("an answer that closes: %v", err)
	}
	if _, err := h.Dial(t.Context(), 0); err == nil {
		t.Error("nobody listens, and it connected")
	}
	h.Endpoints = []string{"127.0.0.1:8701"}
	if _, err := h.Dial(context.Background(), 0); err == nil || !strings.Contains(err.Error(), "http://host:port") {
		t.Errorf("an endpoint without a scheme: %v", err)
	}
}
