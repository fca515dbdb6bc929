package peers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/starling-kv/starling/bench"
)

// Redis is a primary and two replicas. A write is SET and WAIT 1: it is
// acknowledged when one replica has it in memory. Reads go to the primary. Fsync
// is that of the append-only file: "everysec" or "always".
func Redis(ctx context.Context, at Place, fsync string) bench.System {
	program, version, missing := find(ctx, "redis-server", "--version", "Redis", "redis-server")
	name := "redis"
	setting := "primary and 2 replicas, SET then WAIT 1, append-only file synced every second; a failover can lose writes"
	if fsync == "always" {
		name = "redis always"
		setting = "primary and 2 replicas, SET then WAIT 1, append-only file synced before the primary answers"
	}
	return bench.System{
		Name: name, Version: version, Setting: setting, Missing: missing,
		Variants: []bench.Variant{{Name: name, Sync: fsync == "always"}},
		Start: func(ctx context.Context) (bench.Instance, error) {
			c, err := launch(nodes, func(i int) (*process, error) { return startRedis(ctx, program, at, i, fsync) })
			if err != nil {
				return nil, err
			}
			c.dial = func(ctx context.Context, _ int) (bench.Conn, error) { return dialRedis(ctx, at.address(0)) }
			return c.await(ctx, func(ctx context.Context) error { return redisReady(ctx, at.address(0)) })
		},
	}
}

func startRedis(ctx context.Context, program string, at Place, i int, fsync string) (*process, error) {
	name := fmt.Sprintf("r%d", i+1)
	args := []string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(at.Port + i), "--save", "", "--appendonly", "yes",
		"--appendfsync", fsync, "--appenddirname", name, "--dbfilename", name + ".rdb", "--repl-diskless-sync-delay", "0",
	}
	if i > 0 {
		args = append(args, "--replicaof", "127.0.0.1", strconv.Itoa(at.Port))
	}
	return start(ctx, at.Dir, name, program, args...)
}

// redisReady returns nil when both replicas follow.
func redisReady(ctx context.Context, addr string) error {
	conn, err := dialRedis(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it was only asked
	c, _ := conn.(*redisConn)
	info, _, err := c.call(appendCommand(nil, "INFO", []byte("replication")))
	if err != nil {
		return err
	}
	if n := bytes.Count(info, []byte("state=online")); n < nodes-1 {
		return fmt.Errorf("%d replicas follow", n)
	}
	return nil
}

// redisConn speaks RESP.
type redisConn struct {
	conn     net.Conn
	in       *bufio.Reader
	out      []byte
	deadline time.Time
	buf      []byte
}

func dialRedis(ctx context.Context, addr string) (bench.Conn, error) {
	conn, err := (&net.Dialer{Timeout: callTime}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &redisConn{conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}, nil
}

func (c *redisConn) Close() error { return c.conn.Close() }

func (c *redisConn) Get(key []byte) (bench.Answer, error) {
	c.out = appendCommand(c.out[:0], "GET", key)
	_, found, err := c.call(c.out)
	return bench.Answer{Found: found}, err
}

func (c *redisConn) Put(key, value, _ []byte) (bench.Answer, error) {
	c.out = appendCommand(c.out[:0], "SET", key, value)
	c.out = appendCommand(c.out, "WAIT", []byte("1"), []byte("5000"))
	if _, _, err := c.call(c.out); err != nil {
		return bench.Answer{}, err
	}
	acked, _, err := c.reply()
	if err == nil && string(acked) == "0" {
		return bench.Answer{}, &bench.StatusError{Status: "no replica has it"}
	}
	return bench.Answer{Found: true}, err
}

// call sends requests and returns the first reply.
func (c *redisConn) call(requests []byte) (reply []byte, found bool, err error) {
	if c.deadline, err = extend(c.conn, c.deadline); err != nil {
		return nil, false, err
	}
	if _, err := c.conn.Write(requests); err != nil {
		return nil, false, err
	}
	return c.reply()
}

// extend moves a deadline on, now and then: a call gets between one and two
// times its time.
func extend(conn net.Conn, deadline time.Time) (time.Time, error) {
	now := time.Now()
	if deadline.Sub(now) > callTime {
		return deadline, nil
	}
	deadline = now.Add(2 * callTime)
	return deadline, conn.SetDeadline(deadline)
}

// maxReply bounds a reply, in bytes.
const maxReply = 64 << 20

var errReply = errors.New("a reply that makes no sense")

// reply reads a simple string, an error, an integer or a bulk string.
func (c *redisConn) reply() (reply []byte, found bool, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil || len(line) < 3 {
		return nil, false, errors.Join(err, errReply)
	}
	text := line[1 : len(line)-2]
	switch line[0] {
	case '+', ':':
		return text, true, nil
	case '-':
		word, _, _ := strings.Cut(string(text), " ")
		return nil, false, &bench.StatusError{Status: word}
	case '$':
		n, err := strconv.Atoi(string(text))
		switch {
		case err != nil || n > maxReply:
			return nil, false, errors.Join(err, errReply)
		case n < 0:
			return nil, false, nil
		}
		if cap(c.buf) < n+2 {
			c.buf = make([]byte, n+2)
		}
		_, err = io.ReadFull(c.in, c.buf[:n+2])
		return c.buf[:n], true, err
	}
	return nil, false, fmt.Errorf("%w: %q", errReply, line)
}

func appendCommand(dst []byte, name string, args ...[]byte) []byte {
	dst = append(strconv.AppendInt(append(dst, '*'), int64(1+len(args)), 10), "\r\n"...)
	dst = appendBulk(dst, []byte(name))
	for _, a := range args {
		dst = appendBulk(dst, a)
	}
	return dst
}

func appendBulk(dst, b []byte) []byte {
	dst = append(strconv.AppendInt(append(dst, '$'), int64(len(b)), 10), "\r\n"...)
	return append(append(dst, b...), "\r\n"...)
}
