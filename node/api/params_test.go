package api

import (
	"strings"
	"testing"
	"time"

	"github.com/starling-kv/starling/coordinator"
)

func TestKeyParams(t *testing.T) {
	for _, c := range []struct {
		query string
		want  keyParams
	}{
		{"", keyParams{}},
		{"n=3&r=2&w=1", keyParams{Options: coordinator.Options{N: 3, R: coordinator.Exactly(2), W: coordinator.One}}},
		{"n=16&w=all&r=one", keyParams{Options: coordinator.Options{N: 16, R: coordinator.One, W: coordinator.All}}},
		{"r=quorum", keyParams{Options: coordinator.Options{R: coordinator.Quorum}}},
		{"w=16", keyParams{Options: coordinator.Options{W: coordinator.Exactly(16)}}},
		{"sloppy=true", keyParams{Options: coordinator.Options{Sloppy: true}}},
		{"sloppy=false", keyParams{}},
		{"timeout=250ms", keyParams{Options: coordinator.Options{Timeout: 250 * time.Millisecond}}},
		{"timeout=1.5s", keyParams{Options: coordinator.Options{Timeout: 1500 * time.Millisecond}}},
		{"timeout=40", keyParams{Options: coordinator.Options{Timeout: 40 * time.Millisecond}}},
		{"timeout=1m", keyParams{Options: coordinator.Options{Timeout: time.Minute}}},
		{"timeout=60000", keyParams{Options: coordinator.Options{Timeout: time.Minute}}},
		{"sync=true", keyParams{Options: coordinator.Options{Durability: coordinator.DurabilitySync}}},
		{"sync=false", keyParams{Options: coordinator.Options{Durability: coordinator.DurabilityAsync}}},
		{"hedge=all", keyParams{Options: coordinator.Options{Hedge: coordinator.HedgeAll}}},
		{"hedge=off", keyParams{Options: coordinator.Options{Hedge: coordinator.HedgeOff}}},
		{"overwrite=true", keyParams{overwrite: true}},
		{"ttl=1", keyParams{ttl: time.Second}},
		{"ttl=36h", keyParams{ttl: 36 * time.Hour}},
		{"ttl=1.5s", keyParams{ttl: 1500 * time.Millisecond}},
		{"ttl=315360000", keyParams{ttl: coordinator.MaxTTL}},
		{"%6e=%33", keyParams{Options: coordinator.Options{N: 3}}},
	} {
		got, err := parseKeyParams([]byte(c.query), writeParams)
		if err != nil || got != c.want {
			t.Errorf("%q: got %+v, %v, want %+v", c.query, got, err, c.want)
		}
	}
}

func TestKeyParamsRefuses(t *testing.T) {
	for _, c := range []struct{ query, message string }{
		{"x=1", `unknown parameter "x": known here are n, r, w, sloppy, timeout, sync, hedge, overwrite`},
		{"N=3", `unknown parameter "N"`},
		{"monotonic=true", `unknown parameter "monotonic"`},
		{"&", `unknown parameter ""`},
		{"n=3&", ""},
		{"n=3&n=3", "parameter n is given twice"},
		{"n=3&%6e=3", "parameter n is given twice"},
		{"n", `parameter n: "": use 1 to 16 replicas`},
		{"n=0", "use 1 to 16 replicas"},
		{"n=17", "use 1 to 16 replicas"},
		{"n=-1", "use 1 to 16 replicas"},
		{"n=three", "use 1 to 16 replicas"},
		{"r=0", "use a number from 1 to 16, one, quorum or all"},
		{"w=most", "use a number from 1 to 16, one, quorum or all"},
		{"n=2&w=3", "w=3 is more than n=2: raise n, or lower w"},
		{"r=3&n=2", "r=3 is more than n=2"},
		{"sloppy=1", "use true or false"},
		{"sloppy", "use true or false"},
		{"timeout=0", "use a duration from 1ms to 1m0s, such as 250ms or 2s"},
		{"timeout=61s", "use a duration"},
		{"ttl=0", `"0": use seconds, or a duration such as 90s or 36h, from 1s to 10 years`},
		{"ttl=999ms", "from 1s to 10 years"},
		{"ttl=-5s", "from 1s to 10 years"},
		{"ttl=315360001", "from 1s to 10 years"},
		{"ttl=soon", "from 1s to 10 years"},
		{"timeout=-1s", "use a duration"},
		{"timeout=999us", "use a duration"},
		{"timeout=99999999999999999999", "use a duration"},
		{"timeout=", "use a duration"},
		{"hedge=no", "use auto, off or all"},
		{"n=%zz", "bad percent-encoding"},
		{"%=1", "bad percent-encoding"},
	} {
		_, err := parseKeyParams([]byte(c.query), writeParams)
		if c.message == "" {
			if err != nil {
				t.Errorf("%q: %v", c.query, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%q: %v, want %q", c.query, err, c.message)
		}
	}
	if _, err := parseKeyParams([]byte("overwrite=true"), readParams); err == nil {
		t.Error("a read took overwrite=true")
	}
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"n=3&r=2&w=2", "timeout=250ms&sync=true", "hedge=all&sloppy=false&overwrite=true", "n=%33"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, query []byte) {
		p, err := parseKeyParams(query, writeParams)
		if err != nil {
			return
		}
		if p.N < 0 || p.N > 16 || p.N > 0 && (p.W.Of(p.N) > p.N || p.R.Of(p.N) > p.N) {
			t.Errorf("%q: n=%d r=%v w=%v", query, p.N, p.R, p.W)
		}
		if p.Timeout != 0 && (p.Timeout < time.Millisecond || p.Timeout > time.Minute) {
			t.Errorf("%q: timeout %v", query, p.Timeout)
		}
	})
}
