package rewrite

import "strings"

// meta refuses a document in [_meta] of a mapping, which is free for the client to fill.
func (c *controlPass) meta(mapping *treeValue) error {
	if f := c.documentNames(mapping.member("_meta"), ""); f != nil {
		return mappingConflict(f, "[_meta] holds a value of that name in clear, which Elasticsearch would keep in the cluster's state")
	}
	return nil
}

// plainValues refuses what in the mapping of a component template holds a value for a protected field. All else of it is left alone.
func (c *controlPass) plainValues(mapping *treeValue) error {
	for i := range orNull(mapping.member("runtime")).kids {
		if err := c.script(mapping.member("runtime").kids[i].member("script"), nil); err != nil {
			return err
		}
	}
	if err := c.meta(mapping); err != nil {
		return err
	}
	return c.plainProperties(mapping.member("properties"), "")
}

func (c *controlPass) plainProperties(properties *treeValue, prefix string) error {
	for i := range orNull(properties).kids {
		m := &properties.kids[i]
		path := strings.TrimRight(string(m.name), ".")
		if prefix != "" {
			path = prefix + "." + path
		}
		for _, f := range c.fields {
			for _, member := range [...]string{"null_value", "value"} {
				if v := m.member(member); path == f.Path && v != nil && !v.isNull() {
					return mappingConflict(f, "this mapping gives it a plain value ("+member+")")
				}
			}
		}
		if err := c.plainProperties(m.member("properties"), path); err != nil {
			return err
		}
	}
	return nil
}
