package api

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

// A param is one query parameter that a route knows, and how it is read into T.
type param[T any] struct {
	name string
	set  func(into *T, value string) error
}

// parseQuery reads a raw query. Parameters that are unknown or given twice are
// refused: a misspelt w=3 must not pass for the default.
func parseQuery[T any](query []byte, known []param[T]) (T, error) {
	var into T
	seen := 0
	for len(query) > 0 {
		var piece []byte
		piece, query, _ = bytes.Cut(query, []byte("&"))
		rawName, rawValue, _ := bytes.Cut(piece, []byte("="))
		name, err := unescape(rawName)
		if err != nil {
			return into, err
		}
		value, err := unescape(rawValue)
		if err != nil {
			return into, err
		}
		i := indexParam(known, name)
		switch {
		case i < 0:
			return into, badRequest(fmt.Sprintf("unknown parameter %q: %s", name, listParams(known)))
		case seen&(1<<i) != 0:
			return into, badRequest(fmt.Sprintf("parameter %s is given twice", name))
		}
		seen |= 1 << i
		if err := known[i].set(&into, value); err != nil {
			return into, badRequest(fmt.Sprintf("parameter %s: %v", name, err))
		}
	}
	return into, nil
}

func indexParam[T any](known []param[T], name string) int {
	for i := range known {
		if known[i].name == name {
			return i
		}
	}
	return -1
}

func listParams[T any](known []param[T]) string {
	if len(known) == 0 {
		return "there are none here"
	}
	names := make([]string, len(known))
	for i, p := range known {
		names[i] = p.name
	}
	return "known here are " + strings.Join(names, ", ")
}

// keyParams are what a request on a key may choose.
type keyParams struct {
	coordinator.Options

	overwrite, monotonic bool
	ttl                  time.Duration
}

// commonParams are known to every request on a key, readParams to those that
// read it, and writeParams to those that change it.
var (
	commonParams = []param[keyParams]{
		{"n", func(p *keyParams, v string) (err error) { p.N, err = parseN(v); return err }},
		{"r", func(p *keyParams, v string) (err error) { p.R, err = coordinator.ParseCount(v); return err }},
		{"w", func(p *keyParams, v string) (err error) { p.W, err = coordinator.ParseCount(v); return err }},
		{"sloppy", func(p *keyParams, v string) (err error) { p.Sloppy, err = parseBool(v); return err }},
		{"timeout", func(p *keyParams, v string) (err error) { p.Timeout, err = parseTimeout(v); return err }},
		{"sync", func(p *keyParams, v string) (err error) { p.Durability, err = parseSync(v); return err }},
		{"hedge", func(p *keyParams, v string) (err error) { p.Hedge, err = coordinator.ParseHedge(v); return err }},
	}
	readParams = append(slices.Clip(commonParams), param[keyParams]{
		"monotonic", func(p *keyParams, v string) (err error) { p.monotonic, err = parseBool(v); return err },
	})
	writeParams = append(slices.Clip(commonParams), param[keyParams]{
		"overwrite", func(p *keyParams, v string) (err error) { p.overwrite, err = parseBool(v); return err },
	}, param[keyParams]{
		"ttl", func(p *keyParams, v string) (err error) { p.ttl, err = parseTTL(v); return err },
	})
)

// parseKeyParams reads the parameters of a request on a key and checks what
// can be checked before the defaults are known.
func parseKeyParams(query []byte, known []param[keyParams]) (keyParams, error) {
	p, err := parseQuery(query, known)
	if err != nil || p.N == 0 {
		return p, err
	}
	if w := p.W.Of(p.N); w > p.N {
		return p, badRequest(fmt.Sprintf("w=%d is more than n=%d: raise n, or lower w, to what can be reached", w, p.N))
	}
	if r := p.R.Of(p.N); r > p.N {
		return p, badRequest(fmt.Sprintf("r=%d is more than n=%d: raise n, or lower r, to what can be reached", r, p.N))
	}
	return p, nil
}

func parseN(v string) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > kv.MaxN {
		return 0, fmt.Errorf("%q: use 1 to %d replicas", v, kv.MaxN)
	}
	return n, nil
}

func parseBool(v string) (bool, error) {
	switch v {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%q: use true or false", v)
}

func parseSync(v string) (coordinator.Durability, error) {
	sync, err := parseBool(v)
	switch {
	case err != nil:
		return coordinator.DurabilityDefault, err
	case sync:
		return coordinator.DurabilitySync, nil
	}
	return coordinator.DurabilityAsync, nil
}

// parseTimeout reads a duration of Go, or a whole number of milliseconds.
func parseTimeout(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if ms, errMS := strconv.ParseUint(v, 10, 32); errMS == nil {
		d, err = time.Duration(ms)*time.Millisecond, nil
	}
	if err != nil || d < time.Millisecond || d > coordinator.MaxTimeout {
		return 0, fmt.Errorf("%q: use a duration from 1ms to %v, such as 250ms or 2s", v, coordinator.MaxTimeout)
	}
	return d, nil
}

// parseTTL reads a duration of Go, or a whole number of seconds.
func parseTTL(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if seconds, errSeconds := strconv.ParseUint(v, 10, 32); errSeconds == nil {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || d < coordinator.MinTTL || d > coordinator.MaxTTL {
		return 0, fmt.Errorf("%q: use seconds, or a duration such as 90s or 36h, from %v to 10 years", v, coordinator.MinTTL)
	}
	return d, nil
}
