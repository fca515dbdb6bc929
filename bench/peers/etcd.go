package peers

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/starling-kv/starling/bench"
)

// etcdQuota has room for a few million revisions.
const etcdQuota = 8 << 30

// Etcd is a cluster of three, with linearizable reads and, unless unsafe, every
// write synced by a majority. Without, it runs with --unsafe-no-fsync if it
// knows that, and else in memory, a directory on a file system where a sync
// costs nothing, if there is one.
func Etcd(ctx context.Context, at Place, unsafe bool, memory string) bench.System {
	program, version, missing := find(ctx, "etcd", "--version", "etcd Version", "etcd-server")
	name, setting := "etcd", "3 nodes, linearizable reads, every write synced by a majority"
	var flags []string
	if unsafe && missing == "" {
		name, setting = "etcd no fsync", "3 nodes, linearizable reads, --unsafe-no-fsync"
		flags = []string{"--unsafe-no-fsync"}
		help, _ := exec.CommandContext(ctx, program, "--help").CombinedOutput() //nolint:gosec // a store that the operator installed
		if !bytes.Contains(help, []byte(flags[0])) {
			setting = "3 nodes, linearizable reads, data in memory: this version has no --unsafe-no-fsync"
			flags, at.Dir = nil, memory
			if memory == "" {
				missing = "this version has no --unsafe-no-fsync, and there is no file system in memory"
			}
		}
	}
	return bench.System{
		Name: name, Version: version, Setting: setting, Missing: missing,
		Variants: []bench.Variant{{Name: name, Sync: !unsafe}},
		Start: func(ctx context.Context) (bench.Instance, error) {
			c, err := launch(nodes, func(i int) (*process, error) { return startEtcd(ctx, program, at, i, flags) })
			if err != nil {
				return nil, err
			}
			c.dial = func(_ context.Context, i int) (bench.Conn, error) { return dialEtcd(at.address(i % nodes)), nil }
			return c.await(ctx, func(ctx context.Context) error { return etcdReady(ctx, at) })
		},
	}
}

func startEtcd(ctx context.Context, program string, at Place, i int, flags []string) (*process, error) {
	name := fmt.Sprintf("e%d", i+1)
	all := make([]string, 0, nodes)
	for j := range nodes {
		all = append(all, fmt.Sprintf("e%d=http://%s", j+1, at.address(nodes+j)))
	}
	client, peer := "http://"+at.address(i), "http://"+at.address(nodes+i)
	args := append([]string{
		"--name=" + name, "--data-dir=" + filepath.Join(at.Dir, name), "--log-level=warn",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=" + strings.Join(all, ","), "--initial-cluster-token=bench", "--initial-cluster-state=new",
		fmt.Sprintf("--quota-backend-bytes=%d", etcdQuota),
	}, flags...)
	return start(ctx, at.Dir, name, program, args...)
}

// etcdReady returns nil when every node says that it is healthy.
func etcdReady(ctx context.Context, at Place) error {
	for i := range nodes {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.address(i)+"/health", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := (&http.Client{Timeout: time.Second}).Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("node %d is not healthy", i+1)
		}
	}
	return nil
}

// etcdConn speaks gRPC over a connection of its own.
type etcdConn struct {
	transport *http.Transport
	base      string
	message   []byte
	answer    bytes.Buffer
}

func dialEtcd(addr string) *etcdConn {
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	return &etcdConn{transport: &http.Transport{Protocols: &h2}, base: "http://" + addr + "/etcdserverpb.KV/"}
}

func (c *etcdConn) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// Field numbers of etcd's rpc.proto: a RangeRequest and a PutRequest begin with
// the key, a PutRequest goes on with the value, and field 2 of a RangeResponse
// are the pairs.
const (
	fieldKey   = 1
	fieldValue = 2
	fieldPairs = 2
	typeBytes  = 2
)

func (c *etcdConn) Get(key []byte) (bench.Answer, error) {
	c.message = appendField(c.message[:0], fieldKey, key)
	answer, err := c.call("Range")
	if err != nil {
		return bench.Answer{}, err
	}
	found, err := hasField(answer, fieldPairs)
	return bench.Answer{Found: found}, err
}

func (c *etcdConn) Put(key, value, _ []byte) (bench.Answer, error) {
	c.message = appendField(appendField(c.message[:0], fieldKey, key), fieldValue, value)
	_, err := c.call("Put")
	return bench.Answer{Found: true}, err
}

const grpcHead = 5 // not compressed, and the length in four bytes

// call carries one message to a method and returns the one of its answer.
func (c *etcdConn) call(method string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	body := binary.BigEndian.AppendUint32(make([]byte, 1, grpcHead+len(c.message)), uint32(len(c.message)))
	body = append(body, c.message...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header["Content-Type"] = []string{"application/grpc"}
	req.Header["Te"] = []string{"trailers"}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	c.answer.Reset()
	if _, err := io.Copy(&c.answer, resp.Body); err != nil {
		return nil, err
	}
	status := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status")
	if resp.StatusCode != http.StatusOK || status != "0" || c.answer.Len() < grpcHead {
		return nil, &bench.StatusError{Status: fmt.Sprintf("gRPC status %q", status)}
	}
	return c.answer.Bytes()[grpcHead:], nil
}

func appendField(dst []byte, number int, b []byte) []byte {
	dst = append(dst, byte(number<<3|typeBytes))
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

var errProto = errors.New("etcd: a message that makes no sense")

// hasField reports whether a message has a field of bytes.
func hasField(message []byte, number uint64) (bool, error) {
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return false, errProto
		}
		size, m := binary.Uvarint(message[n:])
		switch {
		case m <= 0:
			return false, errProto
		case tag == number<<3|typeBytes:
			return true, nil
		case tag&7 == typeBytes && size <= uint64(len(message)-n-m):
			message = message[n+m+int(size):]
		case tag&7 == 0: // a number, which is size
			message = message[n+m:]
		default:
			return false, errProto
		}
	}
	return false, nil
}
