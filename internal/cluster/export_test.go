package cluster

import "time"

// EvalDateMath and the like let the tests reach what is not exported.
var (
	EvalDateMath = evalDateMath
)

// AutoCreates reads the setting action.auto_create_index for one name.
func AutoCreates(setting, name string) bool { return parseAutoCreate(setting).allows(name) }

// ClockSlack is how far around now date math is computed.
const ClockSlack = clockSlack

// KeepRefusal is how long a refusal for a wrong key stands.
const KeepRefusal time.Duration = keepRefusal
