package bench

import (
	"testing"

	"go.uber.org/goleak"
)

// fasthttp keeps one goroutine for the date, for ever.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}
