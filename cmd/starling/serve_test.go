package main

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/node"
	"github.com/starling-kv/starling/reap"
)

var (
	testSecret    = strings.Repeat("5a", 32)
	testSecretRaw = []byte(strings.Repeat("\x5a", 32))
)

// started parses args as those of serve and returns what a node would be
// started with, or what was said instead.
func started(t *testing.T, args ...string) (*node.Config, result) {
	t.Helper()
	var got *node.Config
	w := &world{startNode: func(_ context.Context, cfg node.Config, _ *zap.Logger) (running, error) {
		got = &cfg
		return nil, errors.New("parsed")
	}}
	return got, starlingIn(t.Context(), w, append([]string{"serve"}, args...)...)
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var defaults = node.Config{
	Name: "n1", Dir: "/data", Secret: testSecretRaw,
	Listen: "127.0.0.1:8701", Admin: "127.0.0.1:8801", Peer: "127.0.0.1:8901", Gossip: "127.0.0.1:9001",
	Weight: 1, Expect: 1, Partitions: 1024, MaxValue: 4 << 20, RecordCache: 128 << 20,
	Defaults: coordinator.Defaults{N: 3, R: coordinator.Quorum, W: coordinator.Quorum, Timeout: 5 * time.Second},
	Repairs:  node.RepairOptions{Exchange: 30 * time.Second, ReapEvery: time.Minute, Reap: reap.Rules{After: 24 * time.Hour}},
}

func TestServeDefaults(t *testing.T) {
	t.Setenv("STARLING_SECRET", testSecret)
	got, r := started(t, "--name=n1", "--dir=/data")
	if got == nil || !reflect.DeepEqual(*got, defaults) {
		t.Errorf("got %+v, %+v", got, r)
	}
}

// Every setting can be given in all three ways, with the same effect.
func TestServeSettings(t *testing.T) {
	secret := writeFile(t, "secret", testSecret+"\n")
	settings := []struct{ key, value, toml string }{
		{"name", "n7", `"n7"`},
		{"dir", "/srv", `"/srv"`},
		{"listen", "10.0.0.7:1", `"10.0.0.7:1"`},
		{"admin", "10.0.0.7:2", `"10.0.0.7:2"`},
		{"peer", "10.0.0.7:3", `"10.0.0.7:3"`},
		{"gossip", "10.0.0.7:4", `"10.0.0.7:4"`},
		{"advertise-host", "192.0.2.7", `"192.0.2.7"`},
		{"seeds", "10.0.0.8:4,10.0.0.9:4", `["10.0.0.8:4", "10.0.0.9:4"]`},
		{"secret-file", secret, `"` + secret + `"`},
		{"zone", "west", `"west"`},
		{"weight", "3", `3`},
		{"bootstrap", "true", `true`},
		{"expect", "5", `5`},
		{"partitions", "64", `64`},
		{"default-n", "5", `5`},
		{"default-r", "one", `"one"`},
		{"default-w", "4", `"4"`},
		{"timeout", "250ms", `"250ms"`},
		{"durability", "async", `"async"`},
		{"max-value", "1MiB", `"1MiB"`},
		{"min-free", "4096", `4096`},
		{"record-cache", "32MiB", `"32MiB"`},
		{"memory-limit", "1GiB", `"1GiB"`},
		{"log-level", "warn", `"warn"`},
		{"log-format", "console", `"console"`},
	}
	want := node.Config{
		Name: "n7", Dir: "/srv", Listen: "10.0.0.7:1", Admin: "10.0.0.7:2", Peer: "10.0.0.7:3", Gossip: "10.0.0.7:4",
		AdvertiseHost: "192.0.2.7", Seeds: []string{"10.0.0.8:4", "10.0.0.9:4"}, Secret: testSecretRaw,
		Zone: "west", Weight: 3, Bootstrap: true, Expect: 5, Partitions: 64, Async: true, MaxValue: 1 << 20, MinFree: 4096,
		Defaults: coordinator.Defaults{N: 5, R: coordinator.One, W: coordinator.Exactly(4), Timeout: 250 * time.Millisecond},
		Repairs:  defaults.Repairs, RecordCache: 32 << 20,
	}
	check := func(t *testing.T, args ...string) {
		t.Helper()
		got, r := started(t, args...)
		if got == nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("got  %+v, %+v\nwant %+v", got, r, want)
		}
	}
	t.Run("flags", func(t *testing.T) {
		args := make([]string, len(settings))
		for i, s := range settings {
			args[i] = "--" + s.key + "=" + s.value
		}
		check(t, args...)
	})
	t.Run("variables", func(t *testing.T) {
		for _, s := range settings {
			t.Setenv("STARLING_"+strings.ToUpper(strings.ReplaceAll(s.key, "-", "_")), s.value)
		}
		check(t)
	})
	t.Run("file", func(t *testing.T) {
		var text strings.Builder
		for _, s := range settings {
			text.WriteString(s.key + " = " + s.toml + "\n")
		}
		path := writeFile(t, "node.toml", text.String())
		check(t, "--config="+path)
		t.Setenv("STARLING_CONFIG", path)
		check(t)
	})
}

// Flags rank before variables, and both before the file.
func TestServePrecedence(t *testing.T) {
	t.Setenv("STARLING_SECRET", testSecret)
	file := writeFile(t, "node.toml", "name = \"file\"\ndir = \"/file\"\nzone = \"file\"\nbootstrap = true\nseeds = [\"file:1\"]\n")
	t.Setenv("STARLING_NAME", "variable")
	t.Setenv("STARLING_DIR", "/variable")
	t.Setenv("STARLING_SEEDS", "variable:1")
	got, r := started(t, "--config="+file, "--name=flag")
	if got == nil {
		t.Fatalf("%+v", r)
	}
	seeds := strings.Join(got.Seeds, " ")
	if got.Name != "flag" || got.Dir != "/variable" || seeds != "variable:1" || got.Zone != "file" || !got.Bootstrap {
		t.Errorf("got %+v", got)
	}
	t.Setenv("STARLING_BOOTSTRAP", "false")
	if got, r := started(t, "--config="+file); got == nil || got.Bootstrap {
		t.Errorf("a variable does not outrank the file: %+v, %+v", got, r)
	}
}

func TestServeRefuses(t *testing.T) {
	t.Setenv("STARLING_SECRET", testSecret)
	file := func(text string) string { return "--config=" + writeFile(t, "node.toml", text) }
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no name", []string{"--dir=/d"}, "--name n1"},
		{"no directory", []string{"--name=n"}, "--dir"},
		{"unknown flag", []string{"--names=2"}, "--names"},
		{"unknown key", []string{file("names = \"n\"\n")}, `unknown key "names": use admin, advertise-host,`},
		{"a table", []string{file("[default]\nn = 3\n")}, `unknown key "default"`},
		{"a config in a config", []string{file("config = \"x\"\n")}, `unknown key "config"`},
		{"a hidden key", []string{file("exit-with-stdin = true\n")}, `unknown key "exit-with-stdin"`},
		{"no TOML", []string{file("name: n1\n")}, "node.toml"},
		{"a number with a point", []string{file("timeout = 1.5\n")}, "node.toml: timeout: write a text"},
		{"a text for a number", []string{file("weight = \"much\"\n")}, "--weight"},
		{"no such file", []string{"--config=/no/such.toml"}, "/no/such.toml"},
		{"a count", []string{"--name=n", "--dir=/d", "--default-r=most"}, "--default-r"},
		{"a count too", []string{"--name=n", "--dir=/d", "--default-w=99"}, "--default-w"},
		{"a size", []string{"--max-value=big"}, "write a size as"},
		{"a durability", []string{"--durability=maybe"}, "sync"},
		{"two secrets", []string{"--name=n", "--dir=/d", "--secret-file=/s"}, "keep one"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, r := started(t, tt.args...)
			if got != nil || r.code != exitUsage || !strings.Contains(r.err, tt.want) {
				t.Errorf("%+v, want %q", r, tt.want)
			}
		})
	}
	t.Setenv("STARLING_WEIGHT", "much")
	if got, r := started(t, "--name=n", "--dir=/d"); got != nil || r.code != exitUsage || !strings.Contains(r.err, "STARLING_WEIGHT") {
		t.Errorf("a bad variable: %+v", r)
	}
}

func TestSecret(t *testing.T) {
	secretFile := func(text string, mode os.FileMode) string {
		path := writeFile(t, "secret", text)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name, path, variable, want string
	}{
		{"hex file", secretFile(testSecret+"\n", 0o600), "", ""},
		{"file of a group", secretFile(testSecret, 0o640), "", ""},
		{"variable", "", testSecret, ""},
		{"base64", "", "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=", ""},
		{"base64 without padding", "", "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo", ""},
		{"none", "", "", "openssl rand -hex 32"},
		{"both", "/s", testSecret, "keep one"},
		{"readable by everybody", secretFile(testSecret, 0o644), "", "chmod 600"},
		{"short", "", testSecret[:62], "31 bytes: use 32 or more"},
		{"empty", secretFile("\n", 0o600), "", "0 bytes"},
		{"neither", "", "correct horse battery staple", "neither hex nor base64"},
		{"no file", "/no/such/secret", "", "/no/such/secret"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := loadSecret(tt.path, tt.variable)
			switch {
			case tt.want == "" && (err != nil || string(got) != string(testSecretRaw)):
				t.Errorf("got %x, %v", got, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err != nil && tt.variable != "" && strings.Contains(err.Error(), tt.variable) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func FuzzSecret(f *testing.F) {
	f.Add(testSecret)
	f.Add("WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := decodeSecret("here", text)
		if err == nil && len(b) < minSecret {
			t.Fatalf("%q is taken for %d bytes", text, len(b))
		}
		if again, err2 := decodeSecret("here", hex.EncodeToString(b)); err == nil && (err2 != nil || string(again) != string(b)) {
			t.Fatalf("%q: not the same in hex: %v", text, err2)
		}
	})
}

// lifeNode is a node whose end the test decides.
type lifeNode struct {
	failed chan error
	closed chan struct{}
}

func (n *lifeNode) Rejoin(failed error) error { return failed }

func (n *lifeNode) Wait() error {
	select {
	case err := <-n.failed:
		return err
	case <-n.closed:
		return nil
	}
}

func (n *lifeNode) Close() error {
	select {
	case <-n.closed:
	default:
		close(n.closed)
	}
	return nil
}

// serveLife runs serve with a node until end has made it end.
func serveLife(t *testing.T, stdin io.Reader, end func(n *lifeNode, cancel func()), args ...string) (result, *lifeNode) {
	t.Helper()
	t.Setenv("STARLING_SECRET", testSecret)
	ctx, cancel := context.WithCancel(t.Context())
	n := &lifeNode{make(chan error, 1), make(chan struct{})}
	w := &world{stdin: stdin, startNode: func(context.Context, node.Config, *zap.Logger) (running, error) {
		end(n, cancel)
		return n, nil
	}}
	return starlingIn(ctx, w, append([]string{"serve", "--name=n1", "--dir=/d"}, args...)...), n
}

func TestServeLife(t *testing.T) {
	r, n := serveLife(t, nil, func(_ *lifeNode, cancel func()) { cancel() })
	if r.code != 0 || !strings.Contains(r.err, `"msg":"closing"`) {
		t.Errorf("ended by a signal: %+v", r)
	}
	<-n.closed

	r, n = serveLife(t, nil, func(n *lifeNode, _ func()) { n.failed <- errors.New("the disk is gone") })
	if r.code != exitFailure || !strings.Contains(r.err, "starling: the disk is gone") {
		t.Errorf("ended by itself: %+v", r)
	}
	<-n.closed

	in, leash := io.Pipe()
	r, _ = serveLife(t, in, func(*lifeNode, func()) { leash.Close() }, "--exit-with-stdin", "--log-format=console")
	if r.code != 0 || !strings.Contains(r.err, "INFO\tclosing") {
		t.Errorf("ended with standard input: %+v", r)
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]byteSize{"0": 0, "4096": 4096, "4MiB": 4 << 20, "1 GiB": 1 << 30, "5MB": 5e6} {
		var got byteSize
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q = %d, %v; want %d", text, got, err, want)
		}
	}
}
