package transport

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/starling-kv/starling/kv"
)

// The handshake, before any frame:
//
//	dialler                      accepter
//	hello            ->
//	                 <-          hello, proof over both hellos
//	proof            ->
//	                 <-          welcome
//
// Either side may send a refusal in place of its turn. Each message is a kind
// byte, a length of two bytes and so many bytes.
type messageKind uint8

const (
	messageHello   messageKind = 1
	messageProof   messageKind = 2
	messageWelcome messageKind = 3
	messageRefuse  messageKind = 4
)

// maxMessage bounds a message, in bytes.
const maxMessage = 1024

func appendMessage(dst []byte, k messageKind, b []byte) []byte {
	dst = binary.BigEndian.AppendUint16(append(dst, byte(k)), uint16(len(b)))
	return append(dst, b...)
}

// readMessage reads exactly one message, so that what follows the handshake
// stays in the connection. A refusal becomes the error that it carries.
func readMessage(r io.Reader, want messageKind) ([]byte, error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	kind, size := messageKind(head[0]), int(binary.BigEndian.Uint16(head[1:]))
	if size > maxMessage || (kind != want && kind != messageRefuse) {
		return nil, refuse(ReasonMalformed, "message of kind %d and %d bytes where kind %d belongs", kind, size, want)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if kind == messageRefuse {
		return nil, readRefusal(body)
	}
	return body, nil
}

func appendHandshakeRefusal(dst []byte, e *HandshakeError) []byte {
	text := e.Text[:min(len(e.Text), maxRefusalText)]
	return appendMessage(dst, messageRefuse, append([]byte{byte(e.Reason)}, text...))
}

func readRefusal(body []byte) error {
	if len(body) == 0 {
		return &HandshakeError{Remote: true}
	}
	text := body[1:min(len(body), 1+maxRefusalText)]
	return &HandshakeError{Reason: Reason(body[0]), Text: string(text), Remote: true}
}

// handshaker makes the handshakes of one node. The caller bounds their time by
// the connection's deadline.
type handshaker struct {
	local func() Hello
	admit func(Hello) error
	key   []byte
}

// laneID says which connection of which link a dialler asks for.
type laneID struct {
	link uint64
	lane uint8
}

// dial is the dialler's side. It returns who answered.
func (s *handshaker) dial(nc net.Conn, want kv.NodeID, id laneID) (Hello, error) {
	other, err := s.dialSteps(nc, want, id)
	s.decline(nc, err)
	return other, explain(err)
}

// accept is the accepter's side. It returns who dialled, and for which lane.
func (s *handshaker) accept(nc net.Conn) (Hello, laneID, error) {
	other, err := s.acceptSteps(nc)
	s.decline(nc, err)
	return other.Hello, laneID{link: other.link, lane: other.lane}, explain(err)
}

func (s *handshaker) dialSteps(nc net.Conn, want kv.NodeID, id laneID) (Hello, error) {
	self := s.hello(want, id)
	mine := self.encode()
	if _, err := nc.Write(appendMessage(nil, messageHello, mine)); err != nil {
		return Hello{}, fmt.Errorf("handshake: %w", err)
	}
	other, theirs, err := readHello(nc, self)
	if err != nil {
		return Hello{}, err
	}
	if err := judge(self, other); err != nil {
		return Hello{}, err
	}
	if err := s.check(nc, prove(s.key, roleAccepter, mine, theirs)); err != nil {
		return Hello{}, err
	}
	if err := s.admitted(other.Hello); err != nil {
		return Hello{}, err
	}
	if _, err := nc.Write(appendMessage(nil, messageProof, prove(s.key, roleDialler, mine, theirs))); err != nil {
		return Hello{}, fmt.Errorf("handshake: %w", err)
	}
	_, err = readMessage(nc, messageWelcome)
	return other.Hello, err
}

func (s *handshaker) acceptSteps(nc net.Conn) (hello, error) {
	self := s.hello(0, laneID{})
	other, theirs, err := readHello(nc, self)
	if err != nil {
		return hello{}, err
	}
	self.want = other.Node
	if err := judge(self, other); err != nil {
		return hello{}, err
	}
	mine := self.encode()
	msg := appendMessage(nil, messageHello, mine)
	msg = appendMessage(msg, messageProof, prove(s.key, roleAccepter, theirs, mine))
	if _, err := nc.Write(msg); err != nil {
		return hello{}, fmt.Errorf("handshake: %w", err)
	}
	if err := s.check(nc, prove(s.key, roleDialler, theirs, mine)); err != nil {
		return hello{}, err
	}
	if err := s.admitted(other.Hello); err != nil {
		return hello{}, err
	}
	if _, err := nc.Write(appendMessage(nil, messageWelcome, nil)); err != nil {
		return hello{}, fmt.Errorf("handshake: %w", err)
	}
	return other, nil
}

func (s *handshaker) hello(want kv.NodeID, id laneID) hello {
	h := hello{
		Hello: s.local(), oldest: oldestProtocol, newest: newestProtocol,
		want: want, link: id.link, lane: id.lane,
	}
	_, _ = rand.Read(h.nonce[:]) // ends the process rather than return an error
	return h
}

// readHello returns the other side's hello, and its bytes for the proofs.
func readHello(nc net.Conn, self hello) (hello, []byte, error) {
	b, err := readMessage(nc, messageHello)
	if err != nil {
		return hello{}, nil, err
	}
	h, err := decodeHello(b)
	if err == nil {
		return h, b, nil
	}
	if h.newest >= h.oldest && h.newest > 0 {
		if err := judgeVersion(self, h); err != nil {
			return hello{}, nil, err
		}
	}
	return hello{}, nil, refuse(ReasonMalformed, "%v", err)
}

// check reads the other side's proof, which only one who knows the secret can
// have made for this connection.
func (*handshaker) check(nc net.Conn, want []byte) error {
	got, err := readMessage(nc, messageProof)
	if err != nil {
		return err
	}
	if !hmac.Equal(got, want) {
		return refuse(ReasonSecret, "wrong proof: give all nodes of a cluster the same secret")
	}
	return nil
}

func (s *handshaker) admitted(other Hello) error {
	if s.admit == nil {
		return nil
	}
	if err := s.admit(other); err != nil {
		return refuse(ReasonNotAdmitted, "node %v (%q): %v", other.Node, other.Name, err)
	}
	return nil
}

// decline tells the other side of a refusal of ours, as far as it will listen.
func (*handshaker) decline(nc net.Conn, err error) {
	if ours, ok := errors.AsType[*HandshakeError](err); ok && !ours.Remote {
		_, _ = nc.Write(appendHandshakeRefusal(nil, ours))
	}
}

// explain gives a handshake that ran out of time its reason.
func explain(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return refuse(ReasonTimeout, "no handshake in time: %v", err)
	}
	return err
}
