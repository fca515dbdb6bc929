package bench

import (
	"os"
	"runtime"
	"testing"
)

func TestParseStatus(t *testing.T) {
	r, err := parseStatus([]byte("Name:\ta b\nVmHWM:\t    3000 kB\nRssAnon:\t    1000 kB\nRssFile:\t      24 kB\nThreads:\t3\n"))
	if err != nil || r != (Resident{Anon: 1000 << 10, File: 24 << 10, Peak: 3000 << 10}) {
		t.Errorf("%+v, %v", r, err)
	}
	for _, text := range []string{"", "RssAnon: 1 kB\n", "VmHWM: 1 kB\nRssAnon: x kB\nRssFile: 1 kB\n"} {
		if _, err := parseStatus([]byte(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestResidentOf(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it needs /proc")
	}
	if r, err := ResidentOf(os.Getpid()); err != nil || r.Anon == 0 || r.Peak < r.Anon {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := ResidentOf(-1); err == nil {
		t.Error("a process that is none has memory")
	}
}

func TestSlope(t *testing.T) {
	if got := Slope([]float64{0, 10, 20, 30}, []float64{5, 26, 44, 65}); !near(got, 2) {
		t.Errorf("%v", got)
	}
	if Slope(nil, nil) != 0 || Slope([]float64{1, 1}, []float64{2, 3}) != 0 {
		t.Error("a line through too few points")
	}
}
