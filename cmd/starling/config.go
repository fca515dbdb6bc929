package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	kongtoml "github.com/alecthomas/kong-toml"
	"github.com/pelletier/go-toml"
)

// configFlag names the file of a node's configuration, and envPrefix begins the
// names of its variables.
const (
	configFlag = "config"
	envPrefix  = "STARLING_"
)

// serveVariables gives every flag of serve its variable.
func serveVariables(k *kong.Kong) error {
	for _, command := range k.Model.Children {
		if command.Name != "serve" {
			continue
		}
		for _, f := range command.Flags {
			if f.Name != "help" && !f.Hidden {
				f.Envs = []string{envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))}
				f.Tag.Envs = f.Envs
			}
		}
	}
	return nil
}

// openConfig reads a TOML file whose keys are names of flags.
func openConfig(path string, flags []*kong.Flag) (kong.Resolver, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", configFlag, err)
	}
	if err := checkKeys(text, flags); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	file, err := kongtoml.Loader(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return fileResolver{Resolver: file, path: path}, nil
}

// checkKeys refuses what is no flag: a misspelt key must not pass for a default.
func checkKeys(text []byte, flags []*kong.Flag) error {
	tree, err := toml.LoadBytes(text)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, f := range flags {
		if f.Name != "help" && f.Name != configFlag && !f.Hidden {
			known[f.Name] = true
		}
	}
	keys := tree.Keys()
	slices.Sort(keys)
	for _, key := range keys {
		if !known[key] {
			return fmt.Errorf("unknown key %q: use %s", key, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
	return nil
}

// fileResolver is a file that ranks after variables, which kong by itself would
// rank after files.
type fileResolver struct {
	kong.Resolver

	path string
}

// Resolve returns the value of a flag as text, as it would stand on a command
// line, or nil.
func (r fileResolver) Resolve(k *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, ok := os.LookupEnv(name); ok {
			return nil, nil //nolint:nilnil // kong's way to say that there is nothing
		}
	}
	value, err := r.Resolver.Resolve(k, parent, flag)
	if value == nil || err != nil {
		return nil, err
	}
	return asText(r.path, flag.Name, value)
}

func asText(path, key string, value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case bool, int64, uint64:
		return fmt.Sprint(v), nil
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			text, err := asText(path, key, item)
			if err != nil {
				return "", err
			}
			items[i] = text
		}
		return strings.Join(items, ","), nil
	}
	return "", fmt.Errorf("%s: %s: write a text, a whole number, true, false or a list of texts", path, key)
}
