package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// dump reads what a node holds, as it tells it: line by line, by ascending
// partition.
type dump struct {
	member operator
	body   io.ReadCloser
	lines  *json.Decoder
	next   heldLine // the first line that was not taken yet
	err    error    // in its place: io.EOF at the end
}

// openDump begins to read what the query of /replica selects.
func openDump(ctx context.Context, m operator, query string) (*dump, error) {
	body, err := stream(ctx, m.url+"/replica?brief=true&"+query)
	if err != nil {
		return nil, fmt.Errorf("what %s holds: %w", m.name, err)
	}
	d := &dump{member: m, body: body, lines: json.NewDecoder(bufio.NewReader(body))}
	d.advance()
	return d, nil
}

func (d *dump) advance() {
	d.next = heldLine{}
	d.err = d.lines.Decode(&d.next)
}

// partition calls fn with the lines of a partition, which must be asked for in
// ascending order. An answer that breaks off is an error.
func (d *dump) partition(p int, fn func(heldLine)) error {
	for ; d.err == nil && d.next.Partition == p; d.advance() {
		fn(d.next)
	}
	switch {
	case errors.Is(d.err, io.EOF):
		return nil
	case d.err != nil:
		return d.failed(d.err)
	case d.next.Partition < p:
		return d.failed(fmt.Errorf("partition %d follows a later one: use the command of the node's version", d.next.Partition))
	}
	return nil
}

// each calls fn with all lines.
func (d *dump) each(fn func(heldLine)) error {
	for ; d.err == nil; d.advance() {
		fn(d.next)
	}
	return d.end()
}

// end returns an error unless all lines were taken.
func (d *dump) end() error {
	switch {
	case errors.Is(d.err, io.EOF):
		return nil
	case d.err != nil:
		return d.failed(d.err)
	}
	return d.failed(fmt.Errorf("it holds records of partition %d, of which it was not asked", d.next.Partition))
}

func (d *dump) failed(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: the node was stopped, or its disk has damaged records: see its log", err)
	}
	return fmt.Errorf("what %s holds: %w", d.member.name, err)
}

func (d *dump) close() { _ = d.body.Close() } // read to its end, or given up
