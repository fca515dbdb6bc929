package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// tick is the unit of /proc/PID/stat, which is the same on every Linux.
const tick = 10 * time.Millisecond

// cpuOf returns the processor time, user and system, that a process and its
// ended children have used.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// CPUOf returns the processor time that processes have used.
func CPUOf(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		used, errOf := cpuOf(pid)
		sum, err = sum+used, errors.Join(err, errOf)
	}
	return sum, err
}

// parseStat reads fields 14 and 15 of /proc/PID/stat. The second field is a
// name in parentheses, which may hold anything.
func parseStat(b []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[end+1:])
	if end < 0 || len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat has too few fields")
	}
	var sum int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/stat: %w", err)
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// busyCPU returns the processor time of all processes together.
func busyCPU() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(b)
}

// parseBusy reads the first line of /proc/stat: user, nice, system, idle,
// iowait, irq, softirq.
func parseBusy(b []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 8 || string(fields[0]) != "cpu" {
		return 0, errors.New("/proc/stat does not begin with the sum of all processors")
	}
	var sum int64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// cpuMeter measures the processor time of the servers and of this process.
type cpuMeter struct {
	pids  []int
	spent cpuTimes
	ok    bool // all was measured
}

type cpuTimes struct{ servers, self, all time.Duration }

func (m *cpuMeter) begin(pids []int) {
	m.pids = pids
	now, err := m.look()
	m.spent, m.ok = now, err == nil
}

func (m *cpuMeter) finish() {
	now, err := m.look()
	m.spent = cpuTimes{now.servers - m.spent.servers, now.self - m.spent.self, now.all - m.spent.all}
	m.ok = m.ok && err == nil
}

func (m *cpuMeter) look() (now cpuTimes, err error) {
	if len(m.pids) == 0 {
		return now, errors.New("no servers of our own")
	}
	if now.self, err = cpuOf(os.Getpid()); err != nil {
		return now, err
	}
	if now.all, err = busyCPU(); err != nil {
		return now, err
	}
	now.servers, err = CPUOf(m.pids)
	return now, err
}
