package skeleton

import (
	"bytes"

	"github.com/valyala/fasthttp"
)

// Sizes of the values that the echo server answers with, in bytes.
const (
	echoSmall = 100
	echoLarge = 1 << 10
)

// NewEcho returns a server that answers every write with 204 and every read
// with a value: the limit of anything on this HTTP library. The value is large
// for keys of the benchmark's large set, which begin with l.
func NewEcho() *fasthttp.Server {
	small, large := bytes.Repeat([]byte("v"), echoSmall), bytes.Repeat([]byte("v"), echoLarge)
	return &fasthttp.Server{
		NoDefaultServerHeader: true, NoDefaultDate: true, NoDefaultContentType: true,
		Handler: func(ctx *fasthttp.RequestCtx) {
			if ctx.Request.Header.IsPut() {
				ctx.SetStatusCode(fasthttp.StatusNoContent)
				return
			}
			if bytes.HasPrefix(ctx.Request.Header.RequestURI(), []byte(prefix+"l")) {
				ctx.Response.SetBodyRaw(large)
				return
			}
			ctx.Response.SetBodyRaw(small)
		},
	}
}
