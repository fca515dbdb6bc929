package client

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// newPool returns a pool of endpoints a, b, c … with their hosts as names.
func newPool(t *testing.T, names string) *pool {
	t.Helper()
	p := &pool{}
	for name := range strings.SplitSeq(names, "") {
		base, err := parseEndpoint("http://" + name)
		if err != nil {
			t.Fatal(err)
		}
		p.endpoints = append(p.endpoints, &endpoint{base: base})
	}
	return p
}

func (p *pool) named(name string) *endpoint {
	for _, e := range p.endpoints {
		if e.base.Host == name {
			return e
		}
	}
	return nil
}

var storySteps = regexp.MustCompile(`[a-c][!.~]?|\+`)

// TestPick tells stories: each step is a picked endpoint ("a"), a failure
// ("a!"), an answer ("a."), an answer that asks for 3 s of peace ("a~"), or the
// passing of a second ("+").
func TestPick(t *testing.T) {
	tests := []struct{ name, endpoints, story string }{
		{"in turn", "abc", "abcab"},
		{"one alone", "a", "aaa!aa.a"},
		{"failed ones are left out", "abc", "aa!bcbc"},
		{"and tried again by one request after a while", "abc", "aa!bc+abcbc+a"},
		{"each failure doubles the while", "abc", "a!a!bc+bc+a"},
		{"an answer forgives all", "abc", "a!a!a!a.abc"},
		{"busy ones are left out as long as they asked", "ab", "aa~bb+b+b+a"},
		{"all in trouble: in turn", "ab", "a!b!abab"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, now := newPool(t, tt.endpoints), time.Unix(0, 0)
			for i, step := range storySteps.FindAllString(tt.story, -1) {
				switch e := p.named(step[:1]); {
				case step == "+":
					now = now.Add(time.Second)
				case strings.HasSuffix(step, "!"):
					p.failed(e, now)
				case strings.HasSuffix(step, "."):
					p.answered(e, now, 0)
				case strings.HasSuffix(step, "~"):
					p.answered(e, now, 3*time.Second)
				default:
					if got, _ := p.pick(now, nil); got != e {
						t.Fatalf("step %d: picked %s, want %s", i, got.base.Host, step)
					}
				}
			}
		})
	}
}

// Within one request the endpoints that it tried come last, but before those
// that are known to be in trouble.
func TestPickPrefersUntried(t *testing.T) {
	p, now := newPool(t, "abc"), time.Unix(0, 0)
	p.failed(p.named("c"), now)
	tried := map[*endpoint]int{p.named("a"): 1}
	for _, want := range []string{"b", "a", "b", "a"} {
		got, _ := p.pick(now, tried)
		if got.base.Host != want {
			t.Fatalf("picked %s after %v, want %s", got.base.Host, tried, want)
		}
		tried[got]++
	}
	if p.untried(now, tried) {
		t.Error("an endpoint in trouble counts as untried")
	}
}

func TestPickWaitsForABusyEndpoint(t *testing.T) {
	p, now := newPool(t, "a"), time.Unix(0, 0)
	p.answered(p.named("a"), now, 3*time.Second)
	if _, wait := p.pick(now.Add(time.Second), nil); wait != 2*time.Second {
		t.Errorf("wait %v, want 2s", wait)
	}
}

func TestPenaltyIsBounded(t *testing.T) {
	tests := map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 6: maxPenalty, 1000: maxPenalty}
	for failures, want := range tests {
		if got := penalty(failures); got != want {
			t.Errorf("penalty after %d failures %v, want %v", failures, got, want)
		}
	}
}
