package peers

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/starling-kv/starling/bench"
)

const (
	natsBucket = "bench"
	natsStream = "KV_" + natsBucket
	natsKey    = "$KV." + natsBucket + "."
)

// NATS is three servers with a JetStream key-value bucket of three replicas.
// Reads are direct ones, which any replica answers, as those of the client
// libraries. With always set every write is synced, which takes 2.10 or newer.
func NATS(ctx context.Context, at Place, always bool) bench.System {
	program, version, missing := find(ctx, "nats-server", "--version", "nats-server", "nats-server")
	name, setting := "nats", "JetStream key-value bucket, R3, synced every 2 minutes, direct reads of any replica"
	if always {
		name, setting = "nats always", "JetStream key-value bucket, R3, sync_interval always, direct reads of any replica"
		if missing == "" && natsBefore(version, [2]int{2, 10}) {
			missing = version + " cannot sync every write: 2.10 or newer can, and Debian bookworm has none"
		}
	}
	return bench.System{
		Name: name, Version: version, Setting: setting, Missing: missing,
		Variants: []bench.Variant{{Name: name, Sync: always}},
		Start: func(ctx context.Context) (bench.Instance, error) {
			c, err := launch(nodes, func(i int) (*process, error) { return startNATS(ctx, program, at, i, always) })
			if err != nil {
				return nil, err
			}
			c.dial = func(ctx context.Context, i int) (bench.Conn, error) { return dialNATS(ctx, at.address(i%nodes)) }
			return c.await(ctx, func(ctx context.Context) error { return natsReady(ctx, at.address(0)) })
		},
	}
}

// natsBefore reports whether "nats-server: v2.9.10" is older.
func natsBefore(version string, than [2]int) bool {
	var v [2]int
	at := strings.LastIndexByte(version, 'v')
	_, err := fmt.Sscanf(version[at+1:], "%d.%d", &v[0], &v[1])
	return err == nil && slices.Compare(v[:], than[:]) < 0
}

func startNATS(ctx context.Context, program string, at Place, i int, always bool) (*process, error) {
	name := fmt.Sprintf("s%d", i+1)
	routes := make([]string, 0, nodes)
	for j := range nodes {
		routes = append(routes, "nats://"+at.address(nodes+j))
	}
	sync := ""
	if always {
		sync = "sync_interval: always"
	}
	config := fmt.Sprintf(`server_name: %s
listen: %q
jetstream { store_dir: %q, max_file_store: 64GB, %s }
cluster { name: bench, listen: %q, routes: [%s] }
`, name, at.address(i), filepath.Join(at.Dir, name), sync, at.address(nodes+i), strings.Join(routes, ", "))
	if err := os.MkdirAll(at.Dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(at.Dir, name+".conf")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return start(ctx, at.Dir, name, program, "--config", path)
}

// natsReady makes the bucket if it is missing, and returns nil when all its
// replicas follow.
func natsReady(ctx context.Context, addr string) error {
	c, err := dialNATS(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // it was only asked
	if err := c.conn.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return err
	}
	create := `{"name":"` + natsStream + `","subjects":["` + natsKey + `>"],"num_replicas":3,"storage":"file",` +
		`"max_msgs_per_subject":1,"discard":"new","allow_direct":true,"allow_rollup_hdrs":true,"deny_delete":true}`
	if _, _, err := c.ask("$JS.API.STREAM.CREATE."+natsStream, nil, []byte(create)); err != nil {
		return err
	}
	body, _, err := c.ask("$JS.API.STREAM.INFO."+natsStream, nil, nil)
	if err != nil {
		return err
	}
	var info struct {
		Cluster struct {
			Leader   string `json:"leader"`
			Replicas []struct {
				Current bool `json:"current"`
			} `json:"replicas"`
		} `json:"cluster"`
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return err
	}
	for _, r := range info.Cluster.Replicas {
		if !r.Current {
			return errors.New("a replica is behind")
		}
	}
	if info.Cluster.Leader == "" || len(info.Cluster.Replicas) != nodes-1 {
		return errors.New("the bucket has no leader yet")
	}
	return nil
}

// natsConn speaks the text protocol of NATS; one request is under way at a time.
type natsConn struct {
	conn     net.Conn
	in       *bufio.Reader
	inbox    string // subject of the answers
	out      []byte
	body     []byte
	deadline time.Time
}

func dialNATS(ctx context.Context, addr string) (*natsConn, error) {
	conn, err := (&net.Dialer{Timeout: callTime}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &natsConn{conn: conn, in: bufio.NewReaderSize(conn, 16<<10), inbox: "_INBOX." + rand.Text()}
	const hello = `CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}` + "\r\n"
	if _, err := io.WriteString(conn, hello+"SUB "+c.inbox+" 1\r\n"); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

func (c *natsConn) Close() error { return c.conn.Close() }

func (c *natsConn) Get(key []byte) (bench.Answer, error) {
	if err := c.extend(); err != nil {
		return bench.Answer{}, err
	}
	_, status, err := c.ask("$JS.API.DIRECT.GET."+natsStream+"."+natsKey, key, nil)
	switch {
	case err != nil:
		return bench.Answer{}, err
	case status == "404":
		return bench.Answer{}, nil
	case status != "":
		return bench.Answer{}, &bench.StatusError{Status: status}
	}
	return bench.Answer{Found: true}, nil
}

func (c *natsConn) Put(key, value, _ []byte) (bench.Answer, error) {
	if err := c.extend(); err != nil {
		return bench.Answer{}, err
	}
	body, status, err := c.ask(natsKey, key, value)
	switch {
	case err != nil:
		return bench.Answer{}, err
	case status != "":
		return bench.Answer{}, &bench.StatusError{Status: status}
	case bytes.Contains(body, []byte(`"error"`)):
		return bench.Answer{}, &bench.StatusError{Status: string(body)}
	}
	return bench.Answer{Found: true}, nil
}

func (c *natsConn) extend() (err error) {
	c.deadline, err = extend(c.conn, c.deadline)
	return err
}

// ask publishes to a subject, of two parts, and returns the answer and the
// status in its header, if there is one.
func (c *natsConn) ask(subject string, rest, payload []byte) (body []byte, status string, err error) {
	c.out = append(append(append(c.out[:0], "PUB "...), subject...), rest...)
	c.out = append(append(append(c.out, ' '), c.inbox...), ' ')
	c.out = append(strconv.AppendInt(c.out, int64(len(payload)), 10), "\r\n"...)
	c.out = append(append(c.out, payload...), "\r\n"...)
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, "", err
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return nil, "", err
		}
		switch word, rest, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" ")); string(word) {
		case "MSG":
			return c.message(bytes.Fields(rest), false)
		case "HMSG":
			return c.message(bytes.Fields(rest), true)
		case "PING":
			if _, err := io.WriteString(c.conn, "PONG\r\n"); err != nil {
				return nil, "", err
			}
		case "-ERR":
			return nil, "", fmt.Errorf("nats: %s", rest)
		default: // INFO, PONG, +OK
		}
	}
}

// message reads the body of a message whose line ends with its length, and
// before that the length of its header if it has one.
func (c *natsConn) message(fields [][]byte, headed bool) (body []byte, status string, err error) {
	if len(fields) < 3 {
		return nil, "", errReply
	}
	total, err := strconv.Atoi(string(fields[len(fields)-1]))
	if err != nil || total < 0 || total > maxReply {
		return nil, "", errReply
	}
	header := 0
	if headed {
		if header, err = strconv.Atoi(string(fields[len(fields)-2])); err != nil || header < 0 || header > total {
			return nil, "", errReply
		}
	}
	if cap(c.body) < total+2 {
		c.body = make([]byte, total+2)
	}
	if _, err := io.ReadFull(c.in, c.body[:total+2]); err != nil {
		return nil, "", err
	}
	line, _, _ := bytes.Cut(c.body[:header], []byte("\r\n"))
	word, _, _ := bytes.Cut(bytes.TrimPrefix(line, []byte("NATS/1.0 ")), []byte(" "))
	if status = string(word); strings.HasPrefix(status, "NATS/") {
		status = "" // a header without a status
	}
	return c.body[header:total], status, nil
}
