package skeleton

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestFramesSurviveAnyCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(0, 20).Draw(t, "frames")
		sent := make([]frame, 0, count)
		var stream []byte
		for range count {
			f := frame{
				kind:  kind(rapid.IntRange(0, int(kindMissing)).Draw(t, "kind")),
				id:    rapid.Uint32().Draw(t, "id"),
				key:   rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "key"),
				value: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value"),
			}
			sent = append(sent, f)
			stream = appendFrame(stream, f)
		}
		r := newFrameReader(iotest.OneByteReader(bytes.NewReader(stream)))
		r.buf = make([]byte, rapid.IntRange(1, 100).Draw(t, "buffer"))
		for _, want := range sent {
			got, err := r.next()
			if err != nil || got.kind != want.kind || got.id != want.id || !bytes.Equal(got.key, want.key) || !bytes.Equal(got.value, want.value) {
				t.Fatalf("got %+v, %v; want %+v", got, err, want)
			}
		}
		if _, err := r.next(); !errors.Is(err, io.EOF) {
			t.Fatalf("after the last frame: %v", err)
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(nil, frame{kind: kindPut, id: 7, key: []byte("k"), value: []byte("v")}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{7, 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := newFrameReader(bytes.NewReader(stream))
		for n := 0; ; n++ {
			if _, err := r.next(); err != nil {
				return
			}
			if n > len(stream) {
				t.Fatal("more frames than bytes")
			}
		}
	})
}
