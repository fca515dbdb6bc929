package client

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/starling-kv/starling/kv"
)

// The headers of the cluster's own.
const (
	headerContext  = "X-Starling-Context"
	headerWriteID  = "X-Starling-Write-Id"
	headerSiblings = "X-Starling-Siblings"
	headerChecksum = "X-Starling-Checksum"
	headerExpires  = "X-Starling-Expires"
	headerMeta     = "X-Starling-Meta-"
)

const typeJSON = "application/json"

// Value is what is stored under a key.
type Value struct {
	Data        []byte
	ContentType string
	// Meta are fields of the writer's own; names are in lower case when read.
	Meta map[string]string
}

// Sibling is a value as a cluster returns it.
type Sibling struct {
	Value

	Dot      string    // names the write that stored it; empty where it is the only one
	Checksum string    // xxh64:<16 hexadecimal digits> of Data
	Modified time.Time // by the clock of the writing replica; zero where not told
	Expires  time.Time // when the cluster stops showing it; zero where not told, or never
}

// Object is all that a read returns of a key.
type Object struct {
	// Siblings is the value, or several if their writers had not seen one
	// another. It is empty only where [Client.Update] shows a key without value.
	Siblings []Sibling
	// Context stands for what this read has seen, for a write that replaces it.
	Context string
	ETag    string
}

// Summary is what [Client.Head] returns of a key.
type Summary struct {
	Siblings int
	// Length and what follows, up to Expires, are those of the only sibling;
	// zero where there are several.
	Length      int64
	ContentType string
	Meta        map[string]string
	Checksum    string
	Modified    time.Time
	Expires     time.Time // when the cluster stops showing it; zero: never
	Context     string
	ETag        string
}

// Written is what a successful write returns.
type Written struct {
	// Context stands for this write and what it replaced.
	Context string
	// Siblings is the number of values that the key has now; more than one says
	// that somebody else wrote at the same time.
	Siblings int
	WriteID  kv.WriteID
	ETag     string
}

// answer is a whole HTTP response.
type answer struct {
	status int
	header http.Header
	length int64 // as declared; -1 if it was not
	body   []byte
}

// failure returns what the answer says went wrong, or nil.
func (a answer) failure() *kv.Error {
	if a.status >= http.StatusOK && a.status <= http.StatusMultipleChoices {
		return nil
	}
	e := &kv.Error{}
	if !a.isJSON() || json.Unmarshal(a.body, e) != nil || e.Code == "" {
		e = &kv.Error{Code: codeOf(a.status), Message: a.text()}
	}
	e.Context = a.header.Get(headerContext)
	if s, err := strconv.Atoi(a.header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(min(s, int(maxRetryAfter/time.Second))) * time.Second
	}
	return e
}

func (a answer) isJSON() bool {
	t, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	return err == nil && t == typeJSON
}

// text is the beginning of an answer that no node of ours wrote, or the status.
func (a answer) text() string {
	const most = 200
	line := strings.Join(strings.Fields(strings.ToValidUTF8(string(a.body[:min(most, len(a.body))]), "?")), " ")
	if line == "" {
		return fmt.Sprintf("status %d %s", a.status, http.StatusText(a.status))
	}
	return fmt.Sprintf("status %d: %s", a.status, line)
}

// codeOf is the code of a bare status, as a HEAD or a proxy returns it.
func codeOf(status int) kv.Code {
	switch status {
	case http.StatusNotFound:
		return kv.CodeNotFound
	case http.StatusPreconditionFailed:
		return kv.CodePrecondition
	case http.StatusPreconditionRequired:
		return kv.CodeContextRequired
	case http.StatusRequestEntityTooLarge:
		return kv.CodeTooLarge
	case http.StatusTooManyRequests:
		return kv.CodeOverloaded
	case http.StatusServiceUnavailable:
		return kv.CodeQuorumUnreached
	case http.StatusGatewayTimeout:
		return kv.CodeTimeout
	case http.StatusInsufficientStorage:
		return kv.CodeDiskFull
	}
	if status >= http.StatusInternalServerError {
		return kv.CodeInternal
	}
	return kv.CodeBadRequest
}

// object reads the answer to a GET.
func (a answer) object() (Object, error) {
	o := Object{Context: a.header.Get(headerContext), ETag: a.header.Get("ETag")}
	if a.status != http.StatusMultipleChoices {
		o.Siblings = []Sibling{{
			Value:    Value{Data: a.body, ContentType: a.header.Get("Content-Type"), Meta: a.meta()},
			Checksum: a.header.Get(headerChecksum),
			Modified: a.modified(), Expires: a.expires(),
		}}
		return o, nil
	}
	var list struct {
		Siblings []siblingJSON `json:"siblings"`
	}
	if err := json.Unmarshal(a.body, &list); err != nil {
		return Object{}, fmt.Errorf("read the list of siblings: %w", err)
	}
	for _, s := range list.Siblings {
		o.Siblings = append(o.Siblings, Sibling{
			Value: Value{Data: s.Value, ContentType: s.ContentType, Meta: s.Meta},
			Dot:   s.Dot, Checksum: s.Checksum, Modified: s.Modified,
		})
	}
	return o, nil
}

// siblingJSON is one entry of the body of a 300.
type siblingJSON struct {
	Dot         string            `json:"dot"`
	ContentType string            `json:"content_type"`
	Meta        map[string]string `json:"meta"`
	Value       []byte            `json:"value"`
	Checksum    string            `json:"checksum"`
	Modified    time.Time         `json:"modified"`
}

// summary reads the answer to a HEAD.
func (a answer) summary() Summary {
	s := Summary{Siblings: a.siblings(), Context: a.header.Get(headerContext), ETag: a.header.Get("ETag")}
	if a.status != http.StatusMultipleChoices {
		s.Length, s.ContentType, s.Meta = a.length, a.header.Get("Content-Type"), a.meta()
		s.Checksum, s.Modified, s.Expires = a.header.Get(headerChecksum), a.modified(), a.expires()
	}
	return s
}

// written reads the answer to a PUT or DELETE.
func (a answer) written(id kv.WriteID) Written {
	return Written{Context: a.header.Get(headerContext), Siblings: a.siblings(), WriteID: id, ETag: a.header.Get("ETag")}
}

// siblings is the number that the answer declares; one if it declares none.
func (a answer) siblings() int {
	if k, err := strconv.Atoi(a.header.Get(headerSiblings)); err == nil && k >= 0 {
		return k
	}
	return 1
}

func (a answer) meta() map[string]string {
	var meta map[string]string
	for name, values := range a.header {
		if !strings.HasPrefix(name, headerMeta) {
			continue
		}
		if meta == nil {
			meta = map[string]string{}
		}
		meta[strings.ToLower(name[len(headerMeta):])] = strings.Join(values, ", ")
	}
	return meta
}

func (a answer) modified() time.Time {
	t, err := http.ParseTime(a.header.Get("Last-Modified"))
	if err != nil {
		return time.Time{}
	}
	return t
}

func (a answer) expires() time.Time {
	t, err := time.Parse(time.RFC3339, a.header.Get(headerExpires))
	if err != nil {
		return time.Time{}
	}
	return t
}
