package peers

import (
	"bufio"
	"errors"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/starling-kv/starling/bench"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a server that reads one request line and then says its part.
func scripted(t *testing.T, lines int, says string) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		in := bufio.NewReader(server)
		for range lines {
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
		}
		_, _ = server.Write([]byte(says))
	}()
	t.Cleanup(func() {
		client.Close()
		server.Close()
		<-done
	})
	return client
}

func TestRedis(t *testing.T) {
	for name, tt := range map[string]struct {
		says  string
		put   bool
		found bool
		err   string
	}{
		"a value":      {says: "$5\r\nvalue\r\n", found: true},
		"empty value":  {says: "$0\r\n\r\n", found: true},
		"no value":     {says: "$-1\r\n"},
		"an error":     {says: "-LOADING not yet\r\n", err: "LOADING"},
		"nonsense":     {says: "?\r\n\r\n", err: "no sense"},
		"cut":          {says: "x", err: "closed"},
		"written":      {put: true, says: "+OK\r\n:2\r\n", found: true},
		"not followed": {put: true, says: "+OK\r\n:0\r\n", err: "no replica"},
	} {
		lines := 5 // of GET k
		if tt.put {
			lines = 14 // of SET k v and WAIT 1 5000
		}
		conn := scripted(t, lines, tt.says)
		c := &redisConn{conn: conn, in: bufio.NewReader(conn)}
		if tt.err == "closed" {
			go conn.Close() // in the middle of its answer, or before
		}
		var a bench.Answer
		var err error
		if tt.put {
			a, err = c.Put([]byte("k"), []byte("v"), nil)
		} else {
			a, err = c.Get([]byte("k"))
		}
		if a.Found != tt.found || (err != nil) != (tt.err != "") || err != nil && tt.err != "closed" && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func TestNATS(t *testing.T) {
	for name, tt := range map[string]struct {
		says  string
		put   bool
		found bool
		err   string
	}{
		"a value":     {says: "HMSG in 1 40 45\r\nNATS/1.0\r\nNats-Stream: KV_bench........\r\n\r\nvalue\r\n", found: true},
		"no value":    {says: "HMSG in 1 30 30\r\nNATS/1.0 404 Message not fou\r\n\r\n"},
		"no bucket":   {says: "HMSG in 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", err: "503"},
		"refused":     {says: "-ERR 'Authorization Violation'\r\n", err: "Authorization"},
		"nonsense":    {says: "MSG in\r\n", err: "no sense"},
		"written":     {put: true, says: "INFO {}\r\nMSG in 1 31\r\n{\"stream\":\"KV_bench\", \"seq\":42}\r\n", found: true},
		"not written": {put: true, says: "MSG in 1 24\r\n{\"error\":{\"code\":503}..}\r\n", err: "503"},
	} {
		lines := 2
		conn := scripted(t, lines, tt.says)
		c := &natsConn{conn: conn, in: bufio.NewReader(conn), inbox: "in"}
		var a bench.Answer
		var err error
		switch {
		case tt.put:
			a, err = c.Put([]byte("k"), []byte("v"), nil)
		default:
			a, err = c.Get([]byte("k"))
		}
		if a.Found != tt.found || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	for version, before := range map[string]bool{"v2.9.10": true, "v1.10.2": true, "v2.10.1": false, "v3.0.0": false, "nonsense": false} {
		if natsBefore("nats-server: "+version, [2]int{2, 10}) != before {
			t.Errorf("%s is before 2.10: want %v", version, before)
		}
	}
}

func TestEtcdMessages(t *testing.T) {
	header := appendField(nil, 1, []byte("a header"))
	withPair := appendField(append(header, 3<<3, 7), fieldPairs, []byte("pair"))
	for name, tt := range map[string]struct {
		message []byte
		found   bool
		err     error
	}{
		"nothing":        {},
		"header alone":   {message: header},
		"header, pair":   {message: withPair, found: true},
		"cut":            {message: header[:4], err: errProto},
		"unknown type":   {message: []byte{1<<3 | 5, 0}, err: errProto},
		"endless number": {message: []byte{0xff}, err: errProto},
	} {
		found, err := hasField(tt.message, fieldPairs)
		if found != tt.found || !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte("$5\r\nvalue\r\n"))
	f.Add([]byte("HMSG in 1 12 12\r\nNATS/1.0\r\n\r\n\r\n"))
	f.Add([]byte("MSG in 1 5\r\nvalue\r\n"))
	f.Add(appendField(nil, fieldPairs, []byte("pair")))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = hasField(b, fieldPairs)
		in := bufio.NewReader(strings.NewReader(string(b)))
		_, _, _ = (&redisConn{in: in}).reply()
		line, _, _ := strings.Cut(string(b), "\r\n")
		n := natsConn{in: bufio.NewReader(strings.NewReader(string(b)))}
		var fields [][]byte
		for f := range strings.FieldsSeq(line) {
			fields = append(fields, []byte(f))
		}
		_, _, _ = n.message(fields, len(b)%2 == 0)
	})
}
