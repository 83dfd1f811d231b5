//! One YAML document into an object, or into what is wrong with it.

use gauze_model::{Code, Origin};
use serde_json::Value;

use super::understand::{Fault, understand};
use super::yaml::{self, Content, Node};
use crate::problem::{Place, Problem};
use crate::world::{Object, ObjectKey, ObjectKind};

/// What came of a document.
#[derive(Debug)]
pub(super) struct Read {
    pub place: Place,
    /// The object as far as it can be told, even if it cannot be used.
    pub key: Option<ObjectKey>,
    pub object: Option<Object>,
    pub problems: Vec<Problem>,
}

/// All objects of a document: more than one, if it is a `List`.
pub(super) fn read(file: &str, node: &Node) -> Vec<Read> {
    match items(node) {
        Some(items) => items.iter().flat_map(|item| read(file, item)).collect(),
        None => vec![read_one(file, node)],
    }
}

/// The items of a `List` (or `ServiceList` …).
fn items(node: &Node) -> Option<&[Node]> {
    let kind = text(yaml::get(node, "kind")?)?;
    match &yaml::get(node, "items")?.value {
        Content::List(items) if kind.ends_with("List") => Some(items),
        _ => None,
    }
}

fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Content::Scalar(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn read_one(file: &str, node: &Node) -> Read {
    let document = Document::of(file, node);
    let place = document.place("");
    let key = match document.identify() {
        Ok(key) => key,
        Err(problem) => return Read { place, key: None, object: None, problems: vec![problem] },
    };
    let (object, problems) = document.understand(&key);
    Read { place, key: Some(key), object, problems }
}

/// A document that may be an object.
struct Document<'n> {
    file: &'n str,
    node: &'n Node,
    version: &'n str,
    /// What it says it is, even if that is nothing that is read.
    origin: Origin,
}

impl<'n> Document<'n> {
    fn of(file: &'n str, node: &'n Node) -> Document<'n> {
        let field = |path: &[&str]| {
            let found = path.iter().try_fold(node, |node, name| yaml::get(node, name));
            found.and_then(text).unwrap_or_default()
        };
        let origin = Origin {
            kind: field(&["kind"]).to_owned(),
            namespace: field(&["metadata", "namespace"]).to_owned(),
            name: field(&["metadata", "name"]).to_owned(),
            ..Origin::default()
        };
        Document { file, node, version: field(&["apiVersion"]), origin }
    }

    fn place(&self, path: &str) -> Place {
        let (line, column) = yaml::find(self.node, path);
        Place { file: self.file.to_owned(), line, column }
    }

    fn problem(&self, code: Code, path: &str, message: impl Into<String>) -> Problem {
        Problem { place: Some(self.place(path)), ..Problem::new(code, self.origin.at(path), message) }
    }

    /// Which object it is.
    fn identify(&self) -> Result<ObjectKey, Problem> {
        let Origin { kind: kind_name, namespace, name, .. } = &self.origin;
        if kind_name.is_empty() || self.version.is_empty() {
            let message =
                "this is not a Kubernetes object: it needs `apiVersion`, `kind` and `metadata.name`";
            return Err(self.problem(Code::OBJECT_UNREADABLE, "", message));
        }
        let Some(kind) = kind_of(self.version, kind_name) else {
            let message =
                format!("gauze does not read `{kind_name}` of `{}`{}", self.version, did_you_mean(kind_name));
            return Err(self.problem(Code::UNKNOWN_KIND, "kind", message));
        };
        if name.is_empty() {
            let message = "the object has no name; write one in `metadata.name`";
            return Err(self.problem(Code::MISSING_FIELD, "metadata.name", message));
        }
        let namespace = match (kind, namespace.as_str()) {
            (ObjectKind::Namespace, _) => "",
            (_, "") => DEFAULT_NAMESPACE,
            (_, namespace) => namespace,
        };
        Ok(ObjectKey::new(kind, namespace, name))
    }

    /// The object, if it can be used, and all that is wrong with it.
    fn understand(mut self, key: &ObjectKey) -> (Option<Object>, Vec<Problem>) {
        self.origin.namespace.clone_from(&key.namespace);
        let mut given = yaml::to_value(self.node);
        if !key.namespace.is_empty() {
            given["metadata"]["namespace"] = key.namespace.clone().into();
        }
        let (object, faults) = understand(key.kind, given);
        let problems =
            faults.into_iter().map(|Fault { code, path, message }| self.problem(code, &path, message));
        (object, problems.collect())
    }
}

/// Where an object goes that names no namespace, as with kubectl.
const DEFAULT_NAMESPACE: &str = "default";

/// The kinds and versions that are read.
fn kind_of(version: &str, kind: &str) -> Option<ObjectKind> {
    Some(match (version, kind) {
        ("v1", "Namespace") => ObjectKind::Namespace,
        ("v1", "ServiceAccount") => ObjectKind::ServiceAccount,
        ("v1", "Pod") => ObjectKind::Pod,
        ("v1", "Service") => ObjectKind::Service,
        ("discovery.k8s.io/v1", "EndpointSlice") => ObjectKind::EndpointSlice,
        ("gateway.networking.k8s.io/v1" | "gateway.networking.k8s.io/v1beta1", "HTTPRoute") => {
            ObjectKind::HttpRoute
        }
        ("gateway.networking.k8s.io/v1" | "gateway.networking.k8s.io/v1alpha2", "GRPCRoute") => {
            ObjectKind::GrpcRoute
        }
        (
            "gateway.networking.k8s.io/v1"
            | "gateway.networking.k8s.io/v1alpha3"
            | "gateway.networking.k8s.io/v1alpha2",
            "TLSRoute",
        ) => ObjectKind::TlsRoute,
        (
            "split.smi-spec.io/v1alpha1"
            | "split.smi-spec.io/v1alpha2"
            | "split.smi-spec.io/v1alpha3"
            | "split.smi-spec.io/v1alpha4",
            "TrafficSplit",
        ) => ObjectKind::TrafficSplit,
        (
            "specs.smi-spec.io/v1alpha1"
            | "specs.smi-spec.io/v1alpha2"
            | "specs.smi-spec.io/v1alpha3"
            | "specs.smi-spec.io/v1alpha4",
            "HTTPRouteGroup",
        ) => ObjectKind::HttpRouteGroup,
        ("gauze.dev/v1alpha1", "TrafficPolicy") => ObjectKind::TrafficPolicy,
        ("gauze.dev/v1alpha1", "AuthorizationPolicy") => ObjectKind::AuthorizationPolicy,
        _ => return None,
    })
}

/// A hint, where only the version is not read or the kind is spelt in another case.
fn did_you_mean(kind: &str) -> String {
    let meant = ObjectKind::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(kind));
    meant.map_or_else(String::new, |meant| {
        format!("; write `apiVersion: {}` and `kind: {meant}`", meant.api_version())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let documents = yaml::parse(text).expect("YAML");
        let reads = documents.iter().flat_map(|node| read("shop.yaml", node));
        reads.flat_map(|read| read.problems).map(|problem| problem.to_string()).collect()
    }

    #[test]
    fn problems_name_the_object_the_field_and_the_place() {
        for (what, text, expected) in [
            (
                "a wrong type",
                "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec:\n  ports:\n  - port: http\n",
                "shop.yaml:6:11: Service/shop/web spec.ports[0].port: invalid type: string \"http\", expected i32 (M1003)",
            ),
            (
                "a field that is missing",
                "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: cart}\nspec:\n  backends: []\n",
                "shop.yaml:5:3: TrafficSplit/default/cart spec: missing field `service` (M1005)",
            ),
            (
                "a value that means nothing",
                "apiVersion: gauze.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: cart}\nspec:\n  targetRefs: []\n  connectTimeout: 10\n",
                "shop.yaml:6:19: TrafficPolicy/default/cart spec.connectTimeout: invalid type: integer `10`, expected a string (M1003)",
            ),
            (
                "a field that the kind does not have",
                "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {port: 80}\n",
                "shop.yaml:4:14: Service/default/web spec.port: Service has no field `spec.port`; correct or remove it (M1002)",
            ),
            (
                "no name",
                "apiVersion: v1\nkind: Service\nmetadata: {namespace: shop}\n",
                "shop.yaml:3:11: Service/shop/ metadata.name: the object has no name; write one in `metadata.name` (M1005)",
            ),
            (
                "an unknown kind",
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n",
                "shop.yaml:2:7: Deployment//web kind: gauze does not read `Deployment` of `apps/v1` (M1004)",
            ),
            (
                "a known kind of another version",
                "apiVersion: v1\nkind: HTTPRoute\nmetadata: {name: web}\n",
                "shop.yaml:2:7: HTTPRoute//web kind: gauze does not read `HTTPRoute` of `v1`; write `apiVersion: gateway.networking.k8s.io/v1` and `kind: HTTPRoute` (M1004)",
            ),
            (
                "something else",
                "hello: world\n",
                "shop.yaml:1:1: this is not a Kubernetes object: it needs `apiVersion`, `kind` and `metadata.name` (M1001)",
            ),
        ] {
            assert_eq!(problems(text), [expected], "{what}");
        }
    }

    #[test]
    fn a_list_is_read_as_its_items() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- {apiVersion: v1, kind: Nothing, metadata: {name: b}}\n";
        let documents = yaml::parse(text).expect("YAML");
        let reads = read("shop.yaml", &documents[0]);
        let keys: Vec<_> = reads.iter().map(|read| read.key.as_ref().map(ToString::to_string)).collect();
        assert_eq!(keys, [Some("Namespace/a".to_owned()), None]);
    }

    #[test]
    fn what_an_api_server_prints_is_understood_whole() {
        let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  creationTimestamp: 2024-01-01T00:00:00Z\n  \
                    annotations: {}\n  managedFields:\n  - {manager: kubectl, operation: Update, fieldsV1: {\"f:spec\": {\"f:ports\": {}}}}\n\
                    spec:\n  sessionAffinity: None\n  ports:\n  - {name: http, port: 80, targetPort: web}\nstatus:\n  loadBalancer: {}\n";
        assert_eq!(problems(text), Vec::<String>::new());
    }

    proptest! {
        /// Hands slip: whatever is cut out of good YAML and put elsewhere is read or reported, never a panic.
        #[test]
        fn no_slip_of_the_hand_is_too_much(from in 0..GOOD.len(), length in 0..40usize, to in 0..GOOD.len()) {
            let end = (from + length).min(GOOD.len());
            let rest = format!("{}{}", &GOOD[..from], &GOOD[end..]);
            let to = to.min(rest.len());
            let text = format!("{}{}{}", &rest[..to], &GOOD[from..end], &rest[to..]);
            for node in yaml::parse(&text).unwrap_or_default() {
                for read in read("a.yaml", &node) {
                    prop_assert!(read.object.is_some() || !read.problems.is_empty(), "{text}");
                }
            }
        }
    }

    const GOOD: &str = "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata:\n  name: cart\n  namespace: shop\n  \
                        annotations: {gauze.dev/mtls: strict}\nspec:\n  service: cart\n  backends:\n  - {service: cart-v1, weight: 90}\n  \
                        - service: cart-v2\n    weight: 500m\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  \
                        metadata: {name: web-0}\n  spec: {containers: [{name: app}]}\n";
}
