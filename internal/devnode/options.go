package devnode

// Options configures a node.
type Options struct {
	// Dir is the folder in which indices live. It is created if missing. With
	// an empty Dir everything is in memory and gone after Close. One process
	// at a time may use a folder.
	Dir string
}
