package sim

import "testing"

// Plans that once broke a promise, by their seed and what was wrong. A change of
// what seeds draw takes their meaning from them: then they are only seeds. They
// are from before there were scenes, and run without.
func TestSeedsThatOnceFailed(t *testing.T) {
	for _, tt := range []struct {
		seed uint64
		why  string
	}{
		{1795313776046340, "node/peer: a copy of a write that was handed on, refused and reported as not applied was applied"},
		{1795314811027974, "coordinator: a clock that was ahead made all replicas forget the attempts of a write"},
		{1795316272221356, "coordinator: a late attempt of a write under If-Match replaced a later delete"},
		{1795321321023659, "coordinator: a floor was taken for reaped that only a stand-in held"},
		{1795325862009962, "standing: a restart forgot that a record was lost once a part of it had taken its place"},
		{1795327029000717, "node/storage: a key of which an owner had a record and a hint could not be put into quarantine"},
		{500414, "node/replica: an emptied owner counted for reads of n=1 before it had merged what was written wider"},
		{9494, "coordinator: a late attempt of an overwrite replaced what was written since it was acknowledged"},
		{18517, "coordinator: a late attempt of a write that asked for no value replaced a later delete"},
		{4351, "coordinator: a request with under 4 ns left woke up for ever to look for stand-ins"},
		{3941, "node/storage: after a clock went back a disk that had been full was not looked at again"},
		{1491, "coordinator: one attempt of a write replaced, the other showed again for good"},
		{76, "coordinator: a slow disk and the routing lost patience at one moment: two histories"},
		{1795315909067471, "sim: an overwrite and a write that came within a millisecond of it"},
		{1795323685028295, "sim: the judge read while a round of reaping was being applied"},
		{569, "sim: what a failed sync was for is gone after a crash, and was never promised if it was not waited for"},
		{10617, "sim: a slow commit brought its error after the faults had ended"},
		{23282, "sim: the disk that knew of two attempts of one write was wiped"},
	} {
		if r := Run(t, tt.seed, Config{Scenes: []Scene{}}); r.Failed() {
			t.Errorf("%s\n%s", tt.why, Explain(t, r))
		}
	}
	for _, tt := range []struct {
		seed   uint64
		scenes []Scene
		why    string
	}{
		{1795345725009255, nil, "sim: a node judged a record in quarantine while a person discarded it"},
		{7000439, nil, "standing: a member that had just been emptied vouched for another one"},
		{1105, nil, "sim: a stand-in passed a write on to its only owner, which was wiped"},
		{700316, nil, "node: a record could not be restored from quarantine that had asked for more owners than its key has now"},
		{20047, []Scene{Folded}, "sim: three disks were set back, one of them unnoticed, and a clock had been folded"},
	} {
		if r := Run(t, tt.seed, Config{Scenes: tt.scenes}); r.Failed() {
			t.Errorf("%s\n%s", tt.why, Explain(t, r))
		}
	}
}

// Without faults nothing may be reported, nor fail: the checkers raise no false
// alarm in long runs, and a cluster that is well serves every request.
func TestNoFalseAlarm(t *testing.T) {
	runs := uint64(5)
	if *cleanFlag {
		runs = 100
	}
	for seed := range runs {
		r := Run(t, seed, Config{Ops: 1000, Faults: []FaultKind{}})
		if r.Failed() {
			t.Fatalf("%s", Explain(t, r))
		}
		if r.Outcomes[OK] < 500 {
			t.Errorf("seed %d: of 1000 operations without a fault only %d went well", seed, r.Outcomes[OK])
		}
	}
}
