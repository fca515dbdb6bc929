package membership

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// contacts keeps this node in touch with all others: it exchanges states with
// those that memberlist has given up, those whose view differs, those of which
// it is in doubt, and with the seeds. memberlist alone forgets a node for good
// after half a minute.
type contacts struct {
	*Gossip
	agenda  *agenda
	reached map[string]bool // seeds that have answered
	ended   chan contactEnd
	busy    int
	started bool // all that was known at the start has been planned
}

type contactEnd struct {
	address string
	err     error
}

// Causes of a contact that are no digest.
const (
	causeMissing = 0
	causeDoubt   = 1
)

func (g *Gossip) keepContact() {
	c := &contacts{
		Gossip:  g,
		agenda:  newAgenda(g.cfg.Random),
		reached: make(map[string]bool),
		ended:   make(chan contactEnd, maxContacts),
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, wake := c.agenda.plan(time.Now(), c.wants(), maxContacts-c.busy)
		c.started = true
		for _, address := range due {
			c.busy++
			g.running.Go(func() { c.ended <- contactEnd{address, g.contact(address)} })
		}
		timer.Stop()
		if !wake.IsZero() {
			timer.Reset(time.Until(wake))
		}
		select {
		case <-g.ctx.Done():
			return
		case <-timer.C:
		case <-g.contactsChanged:
		case end := <-c.ended:
			c.finish(end)
		}
	}
}

// wants returns every address that should be contacted now, each once.
func (c *contacts) wants() []want {
	roster, digest := c.table.roster(), c.views.Durable().Digest()
	live := roster.live()
	known := map[string]bool{c.address: true}
	var wanted []want
	add := func(w want) {
		if !known[w.address] {
			known[w.address] = true
			wanted = append(wanted, w)
		}
	}
	for _, p := range live {
		if p.ViewDigest != digest {
			add(want{address: p.Address, urgent: true, cause: p.ViewDigest ^ digest})
		}
		if address, doubtful := c.doubts.about(p); doubtful {
			add(want{address: address, cause: causeDoubt})
		}
		known[p.Address] = true
	}
	for _, p := range roster.peers {
		add(want{address: p.Address, urgent: !c.started, cause: causeMissing})
	}
	for _, seed := range c.cfg.Seeds {
		if len(live) == 1 || !c.reached[seed] {
			add(want{address: seed, urgent: !c.started, cause: causeMissing})
		}
	}
	return wanted
}

func (c *contacts) finish(end contactEnd) {
	c.busy--
	c.agenda.finished(time.Now(), end.address)
	if end.err == nil {
		c.reached[end.address] = true
	}
	if !c.alone() {
		c.isolation.Store(nil)
		return
	}
	if end.err != nil {
		why := isolated(end.address, end.err)
		if c.isolation.Swap(&why) == nil {
			c.log.Warn("no other node is in reach", zap.String("why", why))
		}
	}
}

// isolated says in words for the operator why this node stays alone.
func isolated(address string, err error) string {
	text := err.Error()
	if strings.Contains(text, "no installed keys could decrypt") {
		return fmt.Sprintf("the node at %s has another cluster secret: give all nodes of a cluster the same one", address)
	}
	if _, first, many := strings.Cut(text, "* "); many { // memberlist makes a list of even one error
		text, _, _ = strings.Cut(first, "\n")
	}
	return fmt.Sprintf("no member could be reached or the cluster secret differs; the last attempt, at %s: %s", address, text)
}

// contact exchanges states with the node at address.
func (g *Gossip) contact(address string) error {
	g.stats.contacts.Add(1)
	found, err := g.resolve(address)
	if err == nil {
		_, err = g.list.Join(found)
	}
	if err != nil {
		g.stats.contactsFailed.Add(1)
	}
	return err
}

// resolve looks an address up within connectTimeout. memberlist would do it
// without any bound.
func (g *Gossip) resolve(address string) ([]string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) != nil {
		return []string{address}, err
	}
	ctx, cancel := context.WithTimeout(g.ctx, connectTimeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, host)
	for i := range found {
		found[i] = net.JoinHostPort(found[i], port)
	}
	return found, err
}

// doubts are the nodes of which this one does not know whether both have the
// same picture of each other. They are safe for concurrent use.
type doubts struct {
	mu       sync.Mutex
	newer    map[string]life // heard of, and perhaps passed over by memberlist; by name
	unlisted map[string]bool // nodes that do not list this one as it is; by name
}

// life is one start of a node, and where it is.
type life struct {
	incarnation uint64
	address     string
}

// heard says that the named node has been announced.
func (d *doubts) heard(name string, l life) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.newer == nil {
		d.newer = make(map[string]life)
	}
	d.newer[name] = l
}

// listed says whether the named node lists this one as it is.
func (d *doubts) listed(name string, yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unlisted == nil {
		d.unlisted = make(map[string]bool)
	}
	if yes {
		delete(d.unlisted, name)
	} else {
		d.unlisted[name] = true
	}
}

// about returns where to find out about a live node, if there is doubt.
func (d *doubts) about(p Peer) (address string, doubtful bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.newer[p.Name]; l.incarnation > p.Incarnation {
		return l.address, true
	}
	return p.Address, d.unlisted[p.Name]
}
