package transport

import (
	"io"
	"net"

	"github.com/starling-kv/starling/kv"
)

// What tests on raw sockets speak, from outside the package.

// RawFrame is a frame as a raw socket sees it.
type RawFrame struct {
	Kind   uint8
	Method Method
	ID     uint64
	Budget uint32
	Body   []byte
}

// Kinds of frames.
const (
	RawRequest = uint8(kindRequest)
	RawReply   = uint8(kindReply)
	RawRefuse  = uint8(kindRefuse)
	RawCancel  = uint8(kindCancel)
	RawPing    = uint8(kindPing)
)

// FrameExtra is the size of a frame beyond its body.
const FrameExtra = frameExtra

// Encode returns the frame's bytes.
func (f RawFrame) Encode() []byte {
	return appendFrame(nil, header{kind: frameKind(f.Kind), method: f.Method, id: f.ID, budget: f.Budget}, f.Body)
}

// RawFrames returns a function that reads the next frame that is no ping.
func RawFrames(from io.Reader) func() (RawFrame, error) {
	r := newFrameReader(from, DefaultMaxBody)
	return func() (RawFrame, error) {
		for {
			f, err := r.next()
			if err != nil || f.kind != kindPing {
				return RawFrame{uint8(f.kind), f.method, f.id, f.budget, f.take()}, err
			}
		}
	}
}

// RawDial shakes hands as the dialler of a lane.
func RawDial(nc net.Conn, self Hello, secret []byte, want kv.NodeID, link uint64, lane uint8) error {
	s, err := rawHandshaker(self, secret)
	if err == nil {
		_, err = s.dial(nc, want, laneID{link: link, lane: lane})
	}
	return err
}

// RawAccept shakes hands as the accepter of a lane, and returns which.
func RawAccept(nc net.Conn, self Hello, secret []byte) (lane uint8, err error) {
	s, err := rawHandshaker(self, secret)
	if err != nil {
		return 0, err
	}
	_, id, err := s.accept(nc)
	return id.lane, err
}

func rawHandshaker(self Hello, secret []byte) (*handshaker, error) {
	key, err := proofKey(secret)
	return &handshaker{local: func() Hello { return self }, key: key}, err
}

// RawHello returns the first message of a dialler who speaks certain versions.
func RawHello(self Hello, want kv.NodeID, oldest, newest uint16) []byte {
	return appendMessage(nil, messageHello, hello{Hello: self, want: want, oldest: oldest, newest: newest}.encode())
}

// RawRefusal reads the answer to RawHello, which should be a refusal.
func RawRefusal(from io.Reader) error {
	_, err := readMessage(from, messageHello)
	return err
}
