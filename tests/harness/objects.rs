//! Kubernetes objects as text, as a user would write them.

use std::net::SocketAddr;

/// A Namespace and the ServiceAccounts in it.
pub(crate) fn namespace(name: &str, accounts: &[&str]) -> String {
    let mut yaml = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    for account in accounts {
        yaml += &format!(
            "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {account}, namespace: {name}}}\n"
        );
    }
    yaml
}

/// A Pod as it stands in the API server; meshed if its spec holds our sidecar.
pub(crate) struct Pod<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub app: &'a str,
    pub version: &'a str,
    pub account: &'a str,
    pub address: SocketAddr,
    pub meshed: bool,
    pub annotations: &'a [(&'a str, &'a str)],
}

impl Pod<'_> {
    pub(crate) fn yaml(&self) -> String {
        let Pod { namespace, name, app, version, account, address, .. } = self;
        let annotations: Vec<String> =
            self.annotations.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
        let sidecar = match self.meshed {
            true => "  initContainers: [{name: gauze-proxy, image: gauze-proxy, restartPolicy: Always}]\n",
            false => "",
        };
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  uid: uid-of-{name}\n  \
             labels: {{app: {app}, version: \"{version}\"}}\n  annotations: {{{annotations}}}\nspec:\n  \
             serviceAccountName: {account}\n{sidecar}  containers: [{{name: app, image: app, ports: [{{containerPort: {port}}}]}}]\n\
             status:\n  phase: Running\n  podIP: {ip}\n  podIPs: [{{ip: {ip}}}]\n  \
             conditions: [{{type: Ready, status: \"True\"}}]\n",
            annotations = annotations.join(", "),
            ip = address.ip(),
            port = address.port(),
        )
    }
}

/// A Service with one port named `name` (the name declares the protocol, as usual) and number `port`.
pub(crate) fn service(namespace: &str, service: &str, address: SocketAddr, port_name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {service}, namespace: {namespace}}}\nspec:\n  \
         type: ClusterIP\n  clusterIP: {ip}\n  clusterIPs: [{ip}]\n  selector: {{app: {service}}}\n  \
         ports: [{{name: {port_name}, port: {port}, targetPort: {port}, protocol: TCP}}]\n",
        ip = address.ip(),
        port = address.port(),
    )
}

/// An EndpointSlice of this Service, every endpoint ready; `pods` are (pod name, address).
pub(crate) fn slice(namespace: &str, service: &str, port_name: &str, pods: &[(&str, SocketAddr)]) -> String {
    let mut yaml = String::new();
    // A slice has one port number for all: pods with other numbers get a slice of their own.
    for (index, (pod, address)) in pods.iter().enumerate() {
        yaml += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{index}\n  \
             namespace: {namespace}\n  labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\n\
             ports: [{{name: {port_name}, port: {port}, protocol: TCP}}]\nendpoints:\n- addresses: [{ip}]\n  \
             conditions: {{ready: true, serving: true, terminating: false}}\n  \
             targetRef: {{kind: Pod, name: {pod}, namespace: {namespace}}}\n",
            ip = address.ip(),
            port = address.port(),
        );
    }
    yaml
}

/// An SMI TrafficSplit; `backends` are (service, weight).
pub(crate) fn split(namespace: &str, name: &str, root: &str, backends: &[(&str, u32)]) -> String {
    let backends: Vec<String> = backends
        .iter()
        .map(|(service, weight)| format!("{{service: {service}, weight: {weight}}}"))
        .collect();
    format!(
        "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  service: {root}\n  backends: [{}]\n",
        backends.join(", ")
    )
}
