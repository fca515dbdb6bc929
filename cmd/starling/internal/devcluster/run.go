package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const probeInterval = 50 * time.Millisecond

// Config is what [Run] needs to know.
type Config struct {
	Nodes []Node
	Home  Home
	// Program and Args are the command of a node; Env is its environment.
	Program string
	Args    func(Node) []string
	Env     []string
	// Report is told what happens, by the goroutine of Run.
	Report func(Event)
	// ReadyTimeout bounds the first start, StopTimeout how long a node may take
	// to end by itself.
	ReadyTimeout, StopTimeout time.Duration
}

// Kinds of [Event].
const (
	EventReady = "ready"
	EventEnded = "ended"
)

// Event is what happened to a node.
type Event struct {
	Kind   string   `json:"event"`
	Name   string   `json:"name"`
	Zone   string   `json:"zone,omitempty"`
	PID    int      `json:"pid"`
	Client string   `json:"client"`
	Admin  string   `json:"admin"`
	Peer   string   `json:"peer"`
	Gossip string   `json:"gossip"`
	Data   string   `json:"data"`
	Log    string   `json:"log"`
	How    string   `json:"how,omitempty"`    // of an end: "signal: killed", "exit status 1"
	Asked  bool     `json:"asked,omitempty"`  // an end that this command brought about
	Output []string `json:"output,omitempty"` // of an end: the last lines of the log
}

// Status is the state of a node.
type Status struct {
	Name   string `json:"name"`
	State  string `json:"state"` // "down", "starting", "ready", "stopping"
	PID    int    `json:"pid,omitempty"`
	Client string `json:"client"`
	Admin  string `json:"admin"`
	Log    string `json:"log"`
}

type supervisor struct {
	Config

	children []*child
	booting  bool
	news     chan news
	orders   chan order
	closing  chan struct{} // closed when no order is taken any more
	helpers  sync.WaitGroup
	http     *http.Client
	stopping []done // told when all is down
}

// Run starts the nodes of cfg and keeps them until ctx ends or an order over
// control says so; then it ends them and returns nil. It returns an error, with
// all nodes down, if they do not become ready. Control is closed by Run.
func Run(ctx context.Context, cfg Config, control net.Listener) error {
	s := &supervisor{
		Config: cfg, booting: true, news: make(chan news), orders: make(chan order), closing: make(chan struct{}),
		http: &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	for _, n := range cfg.Nodes {
		s.children = append(s.children, &child{node: n, state: stateDown})
	}
	closeControl := s.serveControl(ctx, control)
	err := s.run(ctx)
	close(s.closing)
	err = errors.Join(err, s.shutdown())
	tell(&s.stopping, err)
	closeControl()
	return err
}

func (s *supervisor) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, c := range s.children {
		if err := s.start(ctx, c); err != nil {
			return err
		}
	}
	tooLate := time.NewTimer(s.ReadyTimeout)
	defer tooLate.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tooLate.C:
			if s.booting {
				return s.notReady()
			}
		case n := <-s.news:
			if err := s.hear(ctx, n); err != nil {
				return err
			}
		case o := <-s.orders:
			if s.obey(ctx, o) {
				return nil
			}
		}
	}
}

// hear takes in what happened to a process.
func (s *supervisor) hear(ctx context.Context, n news) error {
	switch {
	case n.life != n.c.life:
		return nil
	case n.ended == "":
		s.becameReady(n.c)
		return nil
	}
	return s.processEnded(ctx, n.c, n.ended)
}

func (s *supervisor) becameReady(c *child) {
	if c.state != stateStarting {
		return
	}
	c.state = stateReady
	tell(&c.onReady, nil)
	switch {
	case !s.booting:
		s.Report(s.event(EventReady, c))
	case !slices.ContainsFunc(s.children, func(c *child) bool { return c.state != stateReady }):
		s.booting = false
		for _, c := range s.children {
			s.Report(s.event(EventReady, c))
		}
	}
}

func (s *supervisor) processEnded(ctx context.Context, c *child, how string) error {
	e := s.event(EventEnded, c)
	e.How, e.Asked, e.Output = how, c.state == stateStopping, s.tail(c)
	c.ended()
	if s.booting && !e.Asked {
		return fmt.Errorf("node %s ended before the cluster was ready (%s); its log %s ends with:\n%s",
			e.Name, how, e.Log, strings.Join(e.Output, "\n"))
	}
	s.Report(e)
	if !c.again {
		tell(&c.onReady, fmt.Errorf("node %s ended before it was ready (%s); see %s", e.Name, how, e.Log))
		return nil
	}
	if err := s.start(ctx, c); err != nil {
		tell(&c.onReady, err)
	}
	return nil
}

// notReady says which nodes do not become ready, with what the first logged.
func (s *supervisor) notReady() error {
	var names []string
	var first *child
	for _, c := range s.children {
		if c.state == stateReady {
			continue
		}
		names = append(names, c.node.Name)
		if first == nil {
			first = c
		}
	}
	return fmt.Errorf("not ready after %s: %s; the log %s ends with:\n%s",
		s.ReadyTimeout, strings.Join(names, ", "), s.Home.Log(first.node.Name), strings.Join(s.tail(first), "\n"))
}

// shutdown ends all processes and the goroutines about them.
func (s *supervisor) shutdown() error {
	for _, c := range s.children {
		c.again = false
		s.stop(c)
	}
	tooLate := time.NewTimer(2 * s.StopTimeout) // killed after one
	defer tooLate.Stop()
	for s.up() > 0 {
		select {
		case n := <-s.news:
			if n.ended != "" && n.life == n.c.life {
				n.c.ended()
				tell(&n.c.onReady, errStopping)
			}
		case <-tooLate.C:
			return fmt.Errorf("%d nodes do not end, not even killed", s.up())
		}
	}
	s.helpers.Wait()
	return nil
}

func (s *supervisor) up() int {
	n := 0
	for _, c := range s.children {
		if c.state != stateDown {
			n++
		}
	}
	return n
}

// ready asks a node for its readiness once.
func (s *supervisor) ready(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (s *supervisor) event(kind string, c *child) Event {
	n := c.node
	return Event{
		Kind: kind, Name: n.Name, Zone: n.Zone, PID: c.pid(),
		Client: "http://" + n.Listen, Admin: "http://" + n.Admin, Peer: n.Peer, Gossip: n.Gossip,
		Data: s.Home.Data(n.Name), Log: s.Home.Log(n.Name),
	}
}
