//! What the tools may do: of the rules of their own ClusterRoles those that concern the objects of these tests,
//! word for word, so that a verb which the tool does not have is refused here as well.

/// fluxcd/flagger: charts/flagger/templates/rbac.yaml.
pub(super) const FLAGGER: &str = "
- {apiGroups: [''], resources: [services, services/finalizers], verbs: [get, list, watch, create, update, patch, delete]}
- apiGroups: [flagger.app]
  resources: [canaries, canaries/status, canaries/finalizers]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [split.smi-spec.io]
  resources: [trafficsplits, trafficsplits/finalizers]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, httproutes/finalizers]
  verbs: [get, list, watch, create, update, patch, delete]
";

/// argoproj/argo-rollouts: manifests/role/argo-rollouts-clusterrole.yaml.
pub(super) const ARGO_ROLLOUTS: &str = "
- apiGroups: [argoproj.io]
  resources: [rollouts, rollouts/status, rollouts/finalizers]
  verbs: [get, list, watch, update, patch]
- {apiGroups: [''], resources: [services], verbs: [get, list, watch, patch, create, delete]}
- {apiGroups: [split.smi-spec.io], resources: [trafficsplits], verbs: [create, watch, get, update, patch]}
";

/// The same with what argoproj-labs/rollouts-plugin-trafficrouter-gatewayapi adds: docs/quick-start.md.
pub(super) const GATEWAY_API_PLUGIN: &str = "
- apiGroups: [argoproj.io]
  resources: [rollouts, rollouts/status, rollouts/finalizers]
  verbs: [get, list, watch, update, patch]
- {apiGroups: [''], resources: [services], verbs: [get, list, watch, patch, create, delete]}
- {apiGroups: [gateway.networking.k8s.io], resources: [httproutes], verbs: [get, patch, update]}
";

/// The tools' own kinds, as far as an owner reference needs them.
pub(super) fn definition(group: &str, version: &str, kind: &str, plural: &str) -> String {
    format!(
        "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.{group}}}\n\
         spec:\n  group: {group}\n  scope: Namespaced\n  names: {{kind: {kind}, plural: {plural}, singular: {singular}}}\n  \
         versions:\n  - name: {version}\n    served: true\n    storage: true\n    \
         schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}\n",
        singular = kind.to_lowercase(),
    )
}
