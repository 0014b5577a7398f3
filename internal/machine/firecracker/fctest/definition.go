//go:build linux

// Package fctest stands in for Firecracker and its jailer in tests, where there
// is no KVM: a server built from Firecracker's published API definition, a
// pretended virtual machine behind it, and a jailer that does to it what
// Firecracker's documentation says of the real one. What passes here has been
// said to Firecracker as it wants it said; it is no proof of the real thing.
package fctest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/goccy/go-yaml"
)

// Definition checks requests against an API definition.
type Definition struct {
	doc    *openapi3.T
	router routers.Router
}

// addition is a field that came to Firecracker's API after the release whose
// definition the tests have, in our own words.
type addition struct {
	major, minor int // the release
	schema, name string
	field        *openapi3.Schema
}

// additions returns what there is of that kind among what a driver may send.
func additions() []addition {
	return []addition{
		{1, 12, "SnapshotLoadParams", "network_overrides", openapi3.NewArraySchema().WithItems(
			openapi3.NewObjectSchema().WithProperty("iface_id", openapi3.NewStringSchema()).
				WithProperty("host_dev_name", openapi3.NewStringSchema()).WithRequired([]string{"iface_id", "host_dev_name"}))},
		{1, 16, "SnapshotLoadParams", "vsock_override", openapi3.NewObjectSchema().
			WithProperty("uds_path", openapi3.NewStringSchema()).WithRequired([]string{"uds_path"})},
		{1, 16, "SnapshotLoadParams", "clock_realtime", openapi3.NewBoolSchema()},
	}
}

// ParseDefinition reads Firecracker's definition (Swagger 2.0, YAML) as a release
// 1.minor has it: with the later fields that it has, and none that it has not.
// Fields that a schema does not name are refused, as Firecracker does.
func ParseDefinition(text []byte, minor int) (*Definition, error) {
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, fmt.Errorf("the API definition: %w", err)
	}
	var two openapi2.T
	if err := json.Unmarshal(asJSON, &two); err != nil {
		return nil, fmt.Errorf("the API definition: %w", err)
	}
	doc, err := openapi2conv.ToV3(&two)
	if err != nil {
		return nil, fmt.Errorf("the API definition: %w", err)
	}
	doc.Servers = nil // whatever the host is called
	for _, a := range additions() {
		ref := doc.Components.Schemas[a.schema]
		if ref == nil || ref.Value == nil {
			return nil, fmt.Errorf("the API definition has no %s", a.schema)
		}
		delete(ref.Value.Properties, a.name)
		if minor >= a.minor {
			ref.Value.WithProperty(a.name, a.field)
		}
	}
	for _, ref := range doc.Components.Schemas {
		closeSchema(ref)
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		return nil, fmt.Errorf("the API definition: %w", err)
	}
	return &Definition{doc: doc, router: router}, nil
}

// closeSchema has a schema refuse what it does not name.
func closeSchema(ref *openapi3.SchemaRef) {
	if ref == nil || ref.Value == nil {
		return
	}
	s := ref.Value
	if s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil && s.Type.Is("object") {
		s.WithoutAdditionalProperties()
	}
	for _, p := range s.Properties {
		if p.Ref == "" {
			closeSchema(p)
		}
	}
	if s.Items != nil && s.Items.Ref == "" {
		closeSchema(s.Items)
	}
}

// errType says that a body is not announced as JSON.
var errType = errors.New("the body must be application/json")

// Check says what is wrong with a request, which can be read again afterwards.
func (d *Definition) Check(r *http.Request) error {
	route, params, err := d.router.FindRoute(r)
	if err != nil {
		return err
	}
	if r.ContentLength > 0 && r.Header.Get("Content-Type") != "application/json" {
		return errType
	}
	if r.ContentLength < 0 {
		return errors.New("the body's length must be known first")
	}
	return openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
	})
}

// Operations are all methods and paths of the definition, as "PUT /vsock".
func (d *Definition) Operations() []string {
	var out []string
	for path, item := range d.doc.Paths.Map() {
		for method := range item.Operations() {
			out = append(out, method+" "+path)
		}
	}
	return out
}
