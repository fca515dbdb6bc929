package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/starling-kv/starling/client"
	"github.com/starling-kv/starling/kv"
)

// shelf stands in for a cluster in the examples: one key, whose contexts are the
// number of writes that they have seen.
type shelf struct {
	mu     sync.Mutex
	writes int
	values map[int]string // by the number of their write
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPut || r.Method == http.MethodDelete {
		s.write(w, r)
		return
	}
	w.Header().Set("X-Starling-Context", strconv.Itoa(s.writes))
	switch len(s.values) {
	case 0:
		w.WriteHeader(http.StatusNotFound)
	case 1:
		for _, v := range s.values {
			_, _ = io.WriteString(w, v)
		}
	default:
		list := map[string][]map[string][]byte{}
		for i := range s.writes {
			if v, ok := s.values[i+1]; ok {
				list["siblings"] = append(list["siblings"], map[string][]byte{"value": []byte(v)})
			}
		}
		w.WriteHeader(http.StatusMultipleChoices)
		check(json.NewEncoder(w).Encode(list))
	}
}

func (s *shelf) write(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	seen, _ := strconv.Atoi(r.Header.Get("X-Starling-Context"))
	for i := range s.values {
		if i <= seen {
			delete(s.values, i)
		}
	}
	s.writes++
	if r.Method == http.MethodPut {
		s.values[s.writes] = string(body)
	}
	w.Header().Set("X-Starling-Siblings", strconv.Itoa(len(s.values)))
	w.Header().Set("X-Starling-Context", strconv.Itoa(s.writes))
	w.WriteHeader(http.StatusNoContent)
}

// cluster returns a client of a cluster, and what ends both.
func cluster() (*client.Client, func()) {
	server := httptest.NewServer(&shelf{values: map[int]string{}})
	c, err := client.New([]string{server.URL}, client.Config{})
	check(err)
	return c, func() { c.Close(); server.Close() }
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func Example() {
	c, stop := cluster() // client.New([]string{"http://127.0.0.1:8701", "http://127.0.0.1:8702"}, client.Config{})
	defer stop()
	ctx, key := context.Background(), kv.Key{Bucket: "carts", Name: "ann"}

	_, err := c.Put(ctx, key, client.Value{Data: []byte("milk"), ContentType: "text/plain"}, client.Write{})
	check(err)
	cart, err := c.Get(ctx, key, client.Read{R: "2"})
	check(err)
	fmt.Printf("%s\n", cart.Siblings[0].Data)

	_, err = c.Delete(ctx, key, client.Write{Context: cart.Context})
	check(err)
	_, err = c.Get(ctx, key, client.Read{})
	fmt.Println("gone:", client.IsNotFound(err))
	// Output:
	// milk
	// gone: true
}

// Two writers that have not seen each other leave two siblings. An update gets
// both and stores what it makes of them.
func ExampleClient_Update() {
	c, stop := cluster()
	defer stop()
	ctx, key := context.Background(), kv.Key{Bucket: "carts", Name: "ann"}

	for _, item := range []string{"milk", "eggs"} {
		_, err := c.Put(ctx, key, client.Value{Data: []byte(item)}, client.Write{Blind: true})
		check(err)
	}
	add := func(item string) func(client.Object) (client.Value, error) {
		return func(cart client.Object) (client.Value, error) {
			items := map[string]bool{item: true}
			for _, s := range cart.Siblings {
				for old := range strings.FieldsSeq(string(s.Data)) {
					items[old] = true
				}
			}
			return client.Value{Data: []byte(strings.Join(slices.Sorted(maps.Keys(items)), " "))}, nil
		}
	}
	_, err := c.Update(ctx, key, add("flour"), client.Write{})
	check(err)
	cart, err := c.Get(ctx, key, client.Read{})
	check(err)
	fmt.Printf("%d value: %s\n", len(cart.Siblings), cart.Siblings[0].Data)
	// Output:
	// 1 value: eggs flour milk
}
