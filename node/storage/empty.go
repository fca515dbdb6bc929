package storage

import "errors"

// errSome ends a scan that has found what it was for.
var errSome = errors.New("there is an entry")

// Empty reports whether the store holds no record and no hint.
func (s *Store) Empty() (bool, error) {
	for _, sp := range []space{spaceRecord, spaceHint} {
		from, to := prefixRange([]byte{byte(sp)})
		err := s.engine.Scan(from, to, func(_, _ []byte) error { return errSome })
		if errors.Is(err, errSome) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}
