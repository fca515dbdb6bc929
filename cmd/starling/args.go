package main

import (
	"errors"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/starling-kv/starling/kv"
)

// rawText is an argument or a flag with the bytes that were typed. Kong passes
// its strings through JSON, which replaces whatever is not UTF-8. Nil is none.
type rawText []byte

// Decode takes the next value of the command line.
func (r *rawText) Decode(ctx *kong.DecodeContext) error {
	token, err := ctx.Scan.PopValue("text")
	if err != nil {
		return err
	}
	*r = []byte(token.String())
	return nil
}

// keyArg is BUCKET/KEY on a command line; the key may be any bytes.
type keyArg kv.Key

// Decode parts the bucket from the key at the first slash.
func (k *keyArg) Decode(ctx *kong.DecodeContext) error {
	token, err := ctx.Scan.PopValue("BUCKET/KEY")
	if err != nil {
		return err
	}
	bucket, name, found := strings.Cut(token.String(), "/")
	if !found {
		return errors.New("write it as BUCKET/KEY, such as carts/ann")
	}
	*k = keyArg{Bucket: bucket, Name: name}
	return kv.Key(*k).Validate()
}
