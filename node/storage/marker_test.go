package storage

import (
	"encoding/json"
	"testing"
)

func FuzzParseMarker(f *testing.F) {
	whole, err := json.Marshal(marker{
		Format: markerFormat, NodeID: 1, Node: "anna", Cluster: hexID{1}, Engine: engineState{Kind: "badger", Initialised: true},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"format":1,"node_id":"0000000000000001","node":"anna"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMarker(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := parseMarker(again); err != nil || n != m {
			t.Errorf("%s parsed as %+v, written again as %s: %+v, %v", text, m, again, n, err)
		}
	})
}
