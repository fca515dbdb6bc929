package layers

const module = "github.com/starling-kv/starling"

// A room is a folder with a place in the order of imports: a room imports only
// rooms of a lower rank. Its subfolders belong to it and import one another
// freely; but beneath a room that has rooms beneath it, each must be listed.
type room struct {
	path string
	rank int
	pure bool     // decisions only: no files, network, goroutines or global randomness
	only []string // if set: the only rooms it imports, and nothing of a third party
}

var rooms = []room{
	{path: "internal/wire", rank: 0, pure: true},
	{path: "internal/deadline", rank: 0},

	{path: "vclock", rank: 1, pure: true},
	{path: "merkle", rank: 1, pure: true},

	{path: "kv", rank: 2, pure: true},

	{path: "ring", rank: 3, pure: true},
	{path: "crdt", rank: 3, pure: true},

	{path: "hints", rank: 4},
	{path: "readrepair", rank: 4},
	{path: "antientropy", rank: 4},
	{path: "rebalance", rank: 4},
	{path: "standing", rank: 4},
	{path: "reap", rank: 4},

	{path: "coordinator", rank: 5},

	{path: "node/storage", rank: 6},
	{path: "node/transport", rank: 6},
	{path: "node/membership", rank: 6},
	{path: "node/peer", rank: 6},
	{path: "node/replica", rank: 6},
	{path: "node/api", rank: 6},
	{path: "node/console", rank: 6},

	{path: "node", rank: 7},
	{path: "client", rank: 7, only: []string{"kv"}},

	{path: "cmd", rank: 8},
	{path: "bench", rank: 8},
	{path: "sim", rank: 8},
	{path: "chaos", rank: 8},
	{path: "internal/layers", rank: 8, only: []string{}},
}

// neighbours are the imports between rooms of one rank that are allowed.
var neighbours = []struct{ from, to, why string }{
	{"cmd", "bench", "its command line: the one binary starts the cluster, the limits and the load"},
	{"node/replica", "node/storage", "the replica is what its engine does with a request: it has no meaning without one"},
	{"node/peer", "node/transport", "it is the protocol that the transport carries: its requests and replies are the transport's"},
}

// A rule is named in every complaint, with its reason or remedy.
type rule struct {
	name, why string
	advice    bool // logged, never fails
}

var (
	unranked = rule{
		name: "folder without a rank",
		why:  "give it one in the table rooms of internal/layers/rules_test.go",
	}
	upward = rule{
		name: "upward import",
		why:  "imports run downward only: declare the small interface that you need, and let node join the two",
	}
	sideways = rule{
		name: "sideways import",
		why:  "rooms of one rank must be readable and replaceable alone: let the rank above join them",
	}
	standalone = rule{
		name: "import into a room that stands alone",
		why:  "who imports this room must not get the server or its dependencies with it",
	}
	impureImport = rule{
		name: "outside world in a pure room",
		why:  "decisions are values, tested without files, network or processes: pass in what they need",
	}
	goroutine = rule{
		name: "goroutine in a pure room",
		why:  "every goroutine has an owner that waits for it, and owners live in the drivers above",
	}
	globalRandom = rule{
		name: "global randomness in a pure room",
		why:  "a run must replay from its seed: take a *rand.Rand or a func() uint64",
	}
	sleep = rule{
		name: "sleeping test",
		why:  "it is slow when it passes and flaky when it fails: wait for the event, or run in a testing/synctest bubble",
	}
	vagueName = rule{
		name: "package name that says nothing",
		why:  "name it after what it provides",
	}
	unfinished = rule{
		name: "marker of unfinished work",
		why:  "finish it, or open an issue",
	}
	tooLong = rule{
		name: "file over 600 lines",
		why:  "a reader holds one subject at a time: split it by subject",
	}
	lengthy = rule{
		name:   "file over 400 lines",
		why:    "see whether it has two subjects",
		advice: true,
	}
)

// Lengths of a file that is no test, in lines.
const (
	longest = 600
	goal    = 400
)

// outside are the packages that reach beyond the process.
var outside = []string{"net", "net/http", "os", "os/exec", "os/signal", "os/user", "syscall"}

// seeded are the names of math/rand that do not touch its global source.
var seeded = []string{
	"ChaCha8", "New", "NewChaCha8", "NewPCG", "NewSource", "NewZipf", "PCG", "Rand", "Source", "Source64", "Zipf",
}

var vagueNames = []string{"common", "helper", "helpers", "misc", "util", "utils"}
