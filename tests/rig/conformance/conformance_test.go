// Package conformance is the conformance suite of the Gateway API as upstream
// releases it: what is asked of it, its flags say.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
