package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// DeadLetterSealer seals the protected values of a record, so that it can be kept in a file.
type DeadLetterSealer interface {
	// SealRecord returns record, one JSON object as it was to be stored in index, with every
	// protected value sealed. It returns an error when it cannot be sure of that.
	SealRecord(index string, record []byte) ([]byte, error)
}

// deadLetter is one line of the dead-letter file.
type deadLetter struct {
	Time   time.Time `json:"time"`
	Index  string    `json:"index"`
	ID     string    `json:"id,omitempty"`
	Status int       `json:"status,omitempty"` // as Elasticsearch or the proxy answered; absent when the record was never sent
	Type   string    `json:"type"`             // of the error; never its reason, which can quote values
	Fields []string  `json:"fields,omitempty"`
	// Record is the sealed record; Omitted says why there is none.
	Record  json.RawMessage `json:"record,omitempty"`
	Omitted string          `json:"omitted,omitempty"`
}

// deadLetters appends rejected records to a file. The file is made, with mode 0600, at the first rejection.
type deadLetters struct {
	path   string // empty: rejected records are only counted
	index  string
	sealer DeadLetterSealer
	clock  Clock
	log    *slog.Logger
	file   *os.File
	dirty  bool
}

// add writes one line. doc may be nil. It never writes a record that the sealer has not sealed.
func (d *deadLetters) add(letter deadLetter, doc []byte) error {
	d.log.Warn("record rejected", "index", d.index, "id", letter.ID, "status", letter.Status, "type", letter.Type, "fields", letter.Fields)
	if d.path == "" {
		return nil
	}
	letter.Time, letter.Index = d.clock.Now().UTC(), d.index
	letter.Record, letter.Omitted = d.seal(doc)
	line, err := json.Marshal(letter)
	if err != nil {
		return fmt.Errorf("write the dead letter: %T", err) // not its text, which could quote the record
	}
	if d.file == nil {
		if d.file, err = os.OpenFile(d.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
			return fmt.Errorf("open the dead-letter file: %w", err)
		}
	}
	if _, err := d.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write the dead letter: %w", err)
	}
	d.dirty = true
	return nil
}

func (d *deadLetters) seal(doc []byte) (json.RawMessage, string) {
	switch {
	case doc == nil:
		return nil, "the record is not one JSON object with distinct members"
	case d.sealer == nil:
		return nil, "no key to seal it with"
	}
	sealed, err := d.sealer.SealRecord(d.index, doc)
	var line bytes.Buffer
	if err != nil || json.Compact(&line, sealed) != nil || line.Len() == 0 || line.Bytes()[0] != '{' {
		return nil, "it could not be sealed"
	}
	return line.Bytes(), ""
}

// flush makes what was added durable. The checkpoint moves past a rejected record only after that.
func (d *deadLetters) flush() error {
	if !d.dirty {
		return nil
	}
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("write the dead letters: %w", err)
	}
	d.dirty = false
	return nil
}

func (d *deadLetters) close() error {
	if d.file == nil {
		return nil
	}
	return errors.Join(d.flush(), d.file.Close())
}
