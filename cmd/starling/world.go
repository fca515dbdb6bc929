package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/node"
)

// world is what a command touches outside of itself.
type world struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	terminal       bool // stderr is one
	now            func() time.Time
	getenv         func(string) string
	startNode      func(context.Context, node.Config, *zap.Logger) (running, error)
}

// running is a node that was started.
type running interface {
	// Wait returns when the node has ended, with what ended it.
	Wait() error
	Close() error
	// Rejoin returns nil if a node that failed so can be started again, in the
	// place of the member whose disk was lost.
	Rejoin(failed error) error
}

// printer is the flag that chooses between output for people and for programs.
type printer struct {
	Output string `enum:"table,json" default:"table" short:"o" help:"Print a table for people, or json."`
}

func (p printer) json() bool { return p.Output == "json" }

// print writes v as one line of JSON, or what fill puts on a page.
func (p printer) print(w io.Writer, v any, fill func(*page)) error {
	if p.json() {
		return json.NewEncoder(w).Encode(v)
	}
	return printPage(w, fill)
}

// page gathers what is printed for people.
type page struct{ text strings.Builder }

func printPage(w io.Writer, fill func(*page)) error {
	var p page
	fill(&p)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, err := io.WriteString(table, p.text.String())
	return errors.Join(err, table.Flush())
}

// row adds a row. Cells of neighbouring rows are aligned.
func (p *page) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			p.text.WriteByte('\t')
		}
		fmt.Fprint(&p.text, c)
	}
	p.text.WriteByte('\n')
}

// linef adds a line that is no row.
func (p *page) linef(format string, args ...any) {
	fmt.Fprintf(&p.text, format+"\n", args...)
}

// sayf prints to a person. If nobody reads it, there is nobody to tell.
func sayf(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...)
}
