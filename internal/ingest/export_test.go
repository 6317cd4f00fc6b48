package ingest

// Apply gives tests one record's way through the mapping.
func (m *Mapping) Apply(raw []byte) (id string, body []byte, reject string, fields []string) {
	d := m.apply(raw)
	return d.id, d.body, d.reject, d.fields
}
