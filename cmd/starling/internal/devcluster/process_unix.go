//go:build unix

package devcluster

import (
	"os"
	"os/exec"
	"syscall"
)

// detach puts the command into a process group of its own, so that Ctrl-C in a
// terminal reaches this process alone, which then ends its children.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// Suspend stops a process until it is resumed.
func Suspend(pid int) error { return syscall.Kill(pid, syscall.SIGSTOP) }

// Resume lets a suspended process go on.
func Resume(pid int) error { return syscall.Kill(pid, syscall.SIGCONT) }
