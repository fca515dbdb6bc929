package bench

import (
	"bytes"
	"sync"
	"testing"
)

func TestTokens(t *testing.T) {
	tokens := NewTokens(10)
	if _, ok := tokens.get(nil, 3); ok {
		t.Error("a fresh table knows a key")
	}
	tokens.put(3, []byte("abc"), true)
	if got, ok := tokens.get([]byte("x"), 3); !ok || string(got) != "xabc" {
		t.Errorf("got %q, %v", got, ok)
	}
	tokens.put(3, []byte("partial"), false)
	if _, ok := tokens.get(nil, 3); ok {
		t.Error("a token that does not cover all siblings was kept")
	}
	tokens.put(4, bytes.Repeat([]byte("t"), MaxToken), true)
	if got, ok := tokens.get(nil, 4); !ok || len(got) != MaxToken {
		t.Errorf("the longest token: %d bytes, %v", len(got), ok)
	}
	tokens.put(4, make([]byte, MaxToken+1), true)
	if _, ok := tokens.get(nil, 4); ok {
		t.Error("a token that has no room was kept")
	}
	tokens.put(10, []byte("beyond"), true)
	if _, ok := tokens.get(nil, 10); ok {
		t.Error("a key beyond the table was kept")
	}
}

func TestTokensAreNeverTorn(t *testing.T) {
	tokens := NewTokens(2)
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			token := bytes.Repeat([]byte{byte('a' + i)}, 50+i)
			for range 1000 {
				tokens.put(1, token, true)
				got, ok := tokens.get(nil, 1)
				if !ok || len(got) != 50+int(got[0]-'a') || len(bytes.Trim(got, string(got[:1]))) > 0 {
					t.Errorf("torn: %q", got)
					return
				}
			}
		})
	}
	writers.Wait()
}
