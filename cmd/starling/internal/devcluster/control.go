package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Op is what may be asked of a running cluster.
type Op string

// The operations. All but the first and the last are about one node.
const (
	OpStatus  Op = "status"
	OpRestart Op = "restart" // waits until it is ready; starts one that is down, too
	OpKill    Op = "kill"    // as kill -9; waits until it is gone
	OpStop    Op = "stop"    // the whole cluster; waits until it is down
)

var (
	errStopping = errors.New("the cluster is being stopped")
	errBooting  = errors.New("the cluster is not ready yet: wait until it says so")
)

// order is an operation on its way. Done has room for one; list is filled in
// before.
type order struct {
	op   Op
	name string
	done chan error
	list *[]Status
}

// obey carries out o, or begins to, and reports whether to stop the cluster.
func (s *supervisor) obey(ctx context.Context, o order) bool {
	switch o.op {
	case OpStatus:
		*o.list = s.list()
		o.done <- nil
		return false
	case OpStop:
		s.stopping = append(s.stopping, o.done)
		return true
	case OpRestart, OpKill:
	}
	i := slices.IndexFunc(s.children, func(c *child) bool { return c.node.Name == o.name })
	switch {
	case i < 0:
		o.done <- fmt.Errorf("there is no node %q: name one of %s", o.name, s.names())
	case s.booting:
		o.done <- errBooting
	case o.op == OpRestart:
		s.restart(ctx, s.children[i], o.done)
	default:
		s.slay(s.children[i], o.done)
	}
	return false
}

func (s *supervisor) restart(ctx context.Context, c *child, d done) {
	c.onReady = append(c.onReady, d)
	if c.state != stateDown {
		c.again = true
		s.stop(c)
		return
	}
	if err := s.start(ctx, c); err != nil {
		tell(&c.onReady, err)
	}
}

func (s *supervisor) slay(c *child, d done) {
	if c.state == stateDown {
		d <- fmt.Errorf("node %s is down already: starling dev restart %s", c.node.Name, c.node.Name)
		return
	}
	c.onExit = append(c.onExit, d)
	c.state = stateStopping
	_ = c.cmd.Process.Kill() // gone already, or dies now
}

func (s *supervisor) list() []Status {
	list := make([]Status, len(s.children))
	for i, c := range s.children {
		n := c.node
		list[i] = Status{
			Name: n.Name, State: string(c.state), PID: c.pid(),
			Client: "http://" + n.Listen, Admin: "http://" + n.Admin, Log: s.Home.Log(n.Name),
		}
	}
	return list
}

func (s *supervisor) names() string {
	names := make([]string, len(s.children))
	for i, c := range s.children {
		names[i] = c.node.Name
	}
	return strings.Join(names, ", ")
}

// serveControl takes orders from l until the returned function is called, which
// lets those under way have their answers.
func (s *supervisor) serveControl(ctx context.Context, l net.Listener) func() {
	server := &http.Server{Handler: http.HandlerFunc(s.takeOrder), ReadHeaderTimeout: time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // ends by the below
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		<-served
	}
}

func (s *supervisor) takeOrder(w http.ResponseWriter, r *http.Request) {
	list := []Status{}
	o := order{op: Op(strings.TrimPrefix(r.URL.Path, "/")), name: r.URL.Query().Get("name"), done: make(chan error, 1), list: &list}
	err := errStopping
	select {
	case s.orders <- o:
		select {
		case err = <-o.done:
		case <-r.Context().Done():
			return
		}
	case <-s.closing:
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	b, err := json.Marshal(list)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(b) // its reader has gone, if anything
}

// SocketPath is where a cluster of this user and port base takes orders.
func SocketPath(portBase int) string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = os.TempDir()
	}
	return filepath.Join(dir, fmt.Sprintf("starling-dev-%d", os.Getuid()), fmt.Sprintf("%d.sock", portBase))
}

// Listen opens the socket at path, unless a running cluster has it.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(dir); err != nil || info.Mode().Perm()&0o077 != 0 || !info.IsDir() {
		return nil, fmt.Errorf("%s must be a directory that only you can enter: remove it", dir)
	}
	if conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, errors.New("a dev cluster with this port base runs already: starling dev stop ends it, or choose another --port-base")
	}
	_ = os.Remove(path) // what a killed one has left
	return (&net.ListenConfig{}).Listen(ctx, "unix", path)
}

// Ask carries op to the cluster that listens at path, and waits until it is done.
// Name is that of a node, for the operations about one.
func Ask(ctx context.Context, path string, op Op, name string) ([]Status, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
		},
	}
	target := url.URL{Scheme: "http", Host: "dev", Path: "/" + string(op), RawQuery: url.Values{"name": {name}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if _, ok := errors.AsType[*net.OpError](err); ok && ctx.Err() == nil {
		return nil, errors.New("no dev cluster with this port base answers: start one with starling dev")
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	var list []Status
	return list, json.Unmarshal(body, &list)
}
