package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Resident is the memory of a process that is in use, in bytes.
type Resident struct {
	Anon int64 `json:"anonymous"` // its own, as on a heap
	File int64 `json:"file"`      // pages of files, which the system can take back
	Peak int64 `json:"peak"`      // the most of both together so far
}

// ResidentOf reads /proc/PID/status.
func ResidentOf(pid int) (Resident, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Resident{}, err
	}
	return parseStatus(b)
}

// parseStatus reads lines such as "RssAnon:    1234 kB".
func parseStatus(b []byte) (r Resident, err error) {
	fields := map[string]*int64{"RssAnon": &r.Anon, "RssFile": &r.File, "VmHWM": &r.Peak}
	found := 0
	for line := range bytes.Lines(b) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		into := fields[string(name)]
		if into == nil {
			continue
		}
		kib, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(value), []byte("kB")))), 10, 64)
		if err != nil {
			return Resident{}, fmt.Errorf("/proc/PID/status: %w", err)
		}
		*into = kib << 10
		found++
	}
	if found != len(fields) {
		return Resident{}, fmt.Errorf("/proc/PID/status has %d of the %d fields that are needed", found, len(fields))
	}
	return r, nil
}

// Slope returns the bytes for each key more of a line through the points, by
// least squares; 0 for fewer than two points.
func Slope(keys, resident []float64) float64 {
	n := float64(len(keys))
	var x, y, xx, xy float64
	for i, k := range keys {
		x, y, xx, xy = x+k, y+resident[i], xx+k*k, xy+k*resident[i]
	}
	if d := n*xx - x*x; d != 0 {
		return (n*xy - x*y) / d
	}
	return 0
}
