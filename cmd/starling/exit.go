package main

import (
	"errors"
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/starling-kv/starling/client"
	"github.com/starling-kv/starling/kv"
)

// The exit codes. Help lists them.
const (
	exitFailure  = 1
	exitUsage    = 2
	exitNotFound = 3
	exitSiblings = 4
	exitUnknown  = 5
	exitNoAnswer = 6
)

const exitCodes = `  0  done
  1  failed; for import and verify: some file did
  2  the command line, the configuration or the request makes no sense
  3  the key has no value
  4  the key has several values
  5  the write may or may not have happened
  6  no node answered`

// exitError is an error that chooses its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func (e *exitError) Unwrap() error { return e.err }

// usage is an error of who typed the command.
func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// exitCode is the code that tells err to a script.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	if _, ok := errors.AsType[*kong.ParseError](err); ok {
		return exitUsage
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return requestCode(e)
	}
	return exitFailure
}

func requestCode(e *client.Error) int {
	switch code := client.CodeOf(e); {
	case e.Outcome == kv.Unknown:
		return exitUnknown
	case code == kv.CodeNotFound:
		return exitNotFound
	case code == kv.CodeBadRequest, code == kv.CodeBadContext, code == kv.CodeContextRequired, code == kv.CodeTooLarge:
		return exitUsage
	case code == "":
		return exitNoAnswer
	}
	return exitFailure
}
