package kv

import (
	"flag"
	"os"
	"testing"
)

// TestMain makes more and longer schedules the default here, since a step costs
// next to nothing. Flags on the command line
// still win.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": "1000", "rapid.steps": "60"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}
