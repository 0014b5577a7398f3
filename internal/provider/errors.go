package provider

import "errors"

// ErrUnknown: no provider file has that name or alias.
var ErrUnknown = errors.New("provider: unknown")
