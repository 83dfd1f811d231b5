//! What upstream's own documentation writes is read whole: no field is lost.

use gauze_crds::{GrpcRoute, HttpRoute, TrafficSplit};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads and writes back; `apiVersion` and `kind` are not part of a route's type.
fn round_trip<T: DeserializeOwned + Serialize>(yaml: &str) -> (Value, Value) {
    let mut given: Value = serde_saphyr::from_str(yaml).expect("YAML");
    let typed: T = serde_json::from_value(given.clone()).expect("the type");
    let mut back = serde_json::to_value(typed).expect("JSON");
    for value in [&mut given, &mut back] {
        let fields = value.as_object_mut().expect("an object");
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    (given, back)
}

#[test]
fn an_http_route_with_every_field_of_upstream_loses_none() {
    let (given, back) = round_trip::<HttpRoute>(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all, namespace: shop}
spec:
  useDefaultGateways: All
  parentRefs: [{group: "", kind: Service, namespace: shop, name: cart, sectionName: http, port: 80}]
  hostnames: ["*.example.org"]
  rules:
  - name: first
    matches:
    - path: {type: PathPrefix, value: /}
      headers: [{type: Exact, name: x, value: "y"}]
      queryParams: [{type: RegularExpression, name: q, value: ".*"}]
      method: GET
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: a, value: b}], add: [{name: c, value: d}], remove: [e]}
    - type: RequestMirror
      requestMirror: {backendRef: {name: mirror, port: 80}, percent: 10, fraction: {numerator: 1, denominator: 100}}
    - type: RequestRedirect
      requestRedirect: {scheme: https, hostname: h, port: 1, statusCode: 301, path: {type: ReplaceFullPath, replaceFullPath: /x}}
    - type: URLRewrite
      urlRewrite: {hostname: h, path: {type: ReplacePrefixMatch, replacePrefixMatch: /y}}
    - type: CORS
      cors: {allowOrigins: ["*"], allowCredentials: true, maxAge: 5}
    - type: ExternalAuth
      externalAuth: {protocol: GRPC, backendRef: {name: auth, port: 9000}, grpc: {allowedHeaders: [x]}}
    - type: ExtensionRef
      extensionRef: {group: example.org, kind: Filter, name: f}
    timeouts: {request: 10s, backendRequest: 1s}
    retry: {codes: [500, 502], attempts: 3, backoff: 100ms}
    sessionPersistence: {sessionName: s, type: Cookie, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}
    backendRefs:
    - group: ""
      kind: Service
      namespace: shop
      name: cart
      port: 80
      weight: 3
      filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [x]}}]
status:
  parents:
  - parentRef: {name: cart}
    controllerName: example.org/controller
    conditions: [{type: Accepted, status: "True", reason: Accepted, message: "", observedGeneration: 3, lastTransitionTime: "2026-01-01T00:00:00Z"}]
"#,
    );
    assert_eq!(given, back);
}

#[test]
fn a_grpc_route_with_every_field_of_upstream_loses_none() {
    let (given, back) = round_trip::<GrpcRoute>(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: all, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: calls}]
  hostnames: [calls.example.org]
  rules:
  - name: first
    matches: [{method: {type: Exact, service: shop.Cart, method: Add}, headers: [{name: x, value: "y"}]}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: mirror, port: 80}}}]
    sessionPersistence: {sessionName: s}
    backendRefs: [{name: calls, port: 90, weight: 0, filters: [{type: ExtensionRef, extensionRef: {group: g, kind: k, name: n}}]}]
"#,
    );
    assert_eq!(given, back);
}

#[test]
fn a_split_of_every_version_is_read() {
    for (version, weight) in
        [("v1alpha1", "\"100\""), ("v1alpha2", "100"), ("v1alpha3", "100"), ("v1alpha4", "100")]
    {
        let yaml = format!(
            "apiVersion: split.smi-spec.io/{version}\nkind: TrafficSplit\nmetadata: {{name: s}}\nspec:\n  service: s\n  \
             matches: [{{kind: HTTPRouteGroup, name: g, apiGroup: specs.smi-spec.io}}]\n  \
             backends: [{{service: a, weight: {weight}}}]\n"
        );
        let split: TrafficSplit = serde_saphyr::from_str(&yaml).expect(version);
        assert_eq!(split.spec.backends[0].weight.thousandths, 100_000, "{version}");
        assert_eq!(split.spec.matches.map(|matches| matches.len()), Some(1), "{version}");
    }
}
