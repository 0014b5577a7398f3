//go:build tools

// Package definition pins the Go module that carries Firecracker's API
// definition (client/swagger.yaml), against which the tests check every request
// that the Firecracker driver sends. Nothing of it is built.
package definition

import _ "github.com/firecracker-microvm/firecracker-go-sdk/client/models"
