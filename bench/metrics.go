package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Metrics are what processes count about themselves: the values of the series of
// Prometheus' text format, by name and labels as they stand there.
type Metrics map[string]float64

// Sum adds up the series of that name, whatever their labels are.
func (m Metrics) Sum(name string) (sum float64) {
	for series, v := range m {
		if rest, ok := strings.CutPrefix(series, name); ok && (rest == "" || rest[0] == '{') {
			sum += v
		}
	}
	return sum
}

// Since returns how much each series grew since before.
func (m Metrics) Since(before Metrics) Metrics {
	grown := make(Metrics, len(m))
	for series, v := range m {
		grown[series] = v - before[series]
	}
	return grown
}

const (
	scrapeTimeout = 10 * time.Second
	maxScrape     = 16 << 20 // bytes
)

// Scrape adds up the metrics of several processes, at the addresses of their
// operators: http://host:port.
func Scrape(ctx context.Context, admins ...string) (Metrics, error) {
	sum := Metrics{}
	for _, admin := range admins {
		if err := scrape(ctx, admin+"/metrics", sum); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

// ScrapeLive is [Scrape] of one process after its garbage collector has run.
func ScrapeLive(ctx context.Context, admin string) (Metrics, error) {
	if err := fetch(ctx, admin+"/debug/pprof/heap?gc=1", func(io.Reader) error { return nil }); err != nil {
		return nil, err
	}
	return Scrape(ctx, admin)
}

func scrape(ctx context.Context, url string, into Metrics) error {
	return fetch(ctx, url, func(body io.Reader) error { return parseMetrics(body, into) })
}

func fetch(ctx context.Context, url string, read func(body io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end, or given up
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %s", url, resp.Status)
	}
	return read(io.LimitReader(resp.Body, maxScrape))
}

// parseMetrics adds to the series what the text tells. A time behind a value is
// passed over.
func parseMetrics(text io.Reader, into Metrics) error {
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		end := strings.LastIndexByte(line, '}') + 1 // labels may hold spaces
		gap := strings.IndexByte(line[end:], ' ')
		if gap < 0 {
			return fmt.Errorf("metrics: no value in %q", line)
		}
		fields := strings.Fields(line[end+gap:])
		if len(fields) == 0 {
			return fmt.Errorf("metrics: no value in %q", line)
		}
		v, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return fmt.Errorf("metrics: %q: %w", line, err)
		}
		into[line[:end+gap]] += v
	}
	return lines.Err()
}
