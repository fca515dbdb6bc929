package main

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"strings"
)

const (
	secretVariable = envPrefix + "SECRET"
	minSecret      = 32 // bytes
)

// loadSecret returns the secret of the cluster from a file or from the variable,
// whichever is given.
func loadSecret(path, variable string) ([]byte, error) {
	switch {
	case path != "" && variable != "":
		return nil, usage("--secret-file and %s are both given: keep one", secretVariable)
	case variable != "":
		return decodeSecret(secretVariable, variable)
	case path == "":
		return nil, usage("the node needs the secret of its cluster: openssl rand -hex 32 > secret; chmod 600 secret; and --secret-file secret")
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, usage("--secret-file: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, usage("%s can be read by everybody on this machine: chmod 600 %s, and replace the secret if others were here", path, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, usage("--secret-file: %w", err)
	}
	return decodeSecret(path, string(b))
}

// decodeSecret reads hex or any common base64. The secret is in no error.
func decodeSecret(source, text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString,
		base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString,
		base64.URLEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
	} {
		b, err := decode(text)
		if err != nil {
			continue
		}
		if len(b) < minSecret {
			return nil, usage("%s: the secret has %d bytes: use %d or more, such as those of openssl rand -hex 32", source, len(b), minSecret)
		}
		return b, nil
	}
	return nil, usage("%s: the secret is neither hex nor base64: make one with openssl rand -hex 32", source)
}
