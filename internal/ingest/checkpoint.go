package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// checkpoint keeps the place up to which every record is settled in a file. The file holds one entry for each
// source and index; an entry exists only while a run is unfinished. It is read once, at the start, and replaced by a rename.
// Two runs at a time need two files.
type checkpoint struct {
	path  string // empty: nothing is kept
	key   string
	entry checkpointEntry
	file  checkpointFile
}

type checkpointFile struct {
	Version int                        `json:"version"`
	Entries map[string]checkpointEntry `json:"entries"`
}

type checkpointEntry struct {
	Source   string    `json:"source"`  // for people: without user, password and query
	Index    string    `json:"index"`   //
	Mapping  string    `json:"mapping"` // digest of what decides how records are read and mapped
	State    string    `json:"state,omitempty"`
	Position position  `json:"position"`
	Updated  time.Time `json:"updated"`
}

// openCheckpoint reads the file. A missing file is empty; one that cannot be understood is an error, because
// going on without it would be a silent new beginning.
func openCheckpoint(path string, o *Options) (*checkpoint, error) {
	c := &checkpoint{path: path}
	if path == "" {
		return c, nil
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\n%s\n%s", len(o.Source), o.Source, o.Index))
	c.key = hex.EncodeToString(sum[:16])
	c.entry = checkpointEntry{Source: showSource(o.Source), Index: o.Index, Mapping: o.fingerprint()}
	c.file = checkpointFile{Version: 1, Entries: map[string]checkpointEntry{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the checkpoint: %w", err)
	}
	if err := json.Unmarshal(data, &c.file); err != nil || c.file.Version != 1 {
		return nil, fmt.Errorf("the checkpoint %s is damaged or of another version: delete it to read the source from its beginning", path)
	}
	if c.file.Entries == nil {
		c.file.Entries = map[string]checkpointEntry{}
	}
	return c, nil
}

// start returns where to begin, given the state of the source (its size and time of change, for a file).
// It is the beginning when no run was interrupted, or when mapping, paging or state differ from that run's.
func (c *checkpoint) start(state string) position {
	c.entry.State = state
	e, ok := c.file.Entries[c.key]
	if !ok || e.Mapping != c.entry.Mapping || e.State != state {
		return position{}
	}
	return e.Position
}

// save keeps a place.
func (c *checkpoint) save(at position, now time.Time) error {
	if c.path == "" {
		return nil
	}
	c.entry.Position, c.entry.Updated = at, now.UTC()
	c.file.Entries[c.key] = c.entry
	return c.write()
}

// done forgets the place: the next run begins at the beginning.
func (c *checkpoint) done() error {
	if c.path == "" {
		return nil
	}
	if _, ok := c.file.Entries[c.key]; !ok {
		return nil
	}
	delete(c.file.Entries, c.key)
	return c.write()
}

// write replaces the file so that a crash leaves the old or the new one, whole.
func (c *checkpoint) write() error {
	data, err := json.MarshalIndent(c.file, "", "  ")
	if err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(c.path), ".checkpoint-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	_, err = tmp.Write(append(data, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), c.path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // the error that counts is the first
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	return nil
}

// showSource is a source for people: an address without what may be secret in it.
func showSource(source string) string {
	if !isHTTP(source) {
		return source
	}
	u, err := url.Parse(source)
	if err != nil {
		return "(an address that cannot be parsed)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// fileState tells one content of a file from another, as well as size and time of change can.
func fileState(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		return "", fmt.Errorf("%s is a folder, not a file", path)
	}
	return fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano()), nil
}
