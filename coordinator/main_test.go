package coordinator

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// TestMain makes more random schedules the default here: in virtual time one
// costs a millisecond or two. Flags on the command line still win.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "1000"); err != nil {
		panic(err)
	}
	flag.Parse()
	goleak.VerifyTestMain(m)
}
