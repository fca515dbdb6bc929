//go:build !unix

package devcluster

import (
	"errors"
	"os"
	"os/exec"
)

func detach(*exec.Cmd) {}

func terminate(p *os.Process) error { return p.Kill() }

var errSignals = errors.New("processes cannot be suspended on this system")

// Suspend stops a process until it is resumed.
func Suspend(int) error { return errSignals }

// Resume lets a suspended process go on.
func Resume(int) error { return errSignals }
