{{/* Labels of everything; component is passed as (list . "component"). */}}
{{- define "gauze.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{ include "gauze.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: gauze
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What never changes, since a Deployment's selector cannot. */}}
{{- define "gauze.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: gauze
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* An image: (list . .Values.image.proxy). */}}
{{- define "gauze.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}
{{- $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The Secret that holds the root's key. */}}
{{- define "gauze.rootSecret" -}}
{{ .Values.ca.existingSecret | default "gauze-root" }}
{{- end }}

{{- define "gauze.replicas" -}}
{{- if kindIs "invalid" .Values.replicaCount }}{{ eq .Values.profile "ha" | ternary 2 1 }}{{ else }}{{ .Values.replicaCount }}{{ end }}
{{- end }}

{{/* What both webhooks share: (list . "/path"). */}}
{{- define "gauze.webhook" -}}
{{- $root := index . 0 -}}
admissionReviewVersions: [v1]
clientConfig:
  service:
    name: gauze-control-plane
    namespace: {{ $root.Release.Namespace }}
    path: {{ index . 1 }}
    port: 443
failurePolicy: {{ $root.Values.injector.failurePolicy }}
timeoutSeconds: {{ $root.Values.injector.timeoutSeconds }}
matchPolicy: Equivalent
reinvocationPolicy: IfNeeded
# gauze-trust is written when a pod is really admitted.
sideEffects: NoneOnDryRun
rules:
  - apiGroups: [""]
    apiVersions: [v1]
    resources: [pods]
    operations: [CREATE]
    scope: Namespaced
{{- end }}
