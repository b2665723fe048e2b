{{- define "exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride }}
{{- end }}

{{- define "exporter.fullname" -}}
{{- $name := include "exporter.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "exporter.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "exporter.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "exporter.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of every object but the pods: the chart's version changes with every upgrade, and would roll them.
     (list $ LABELS) adds those of the user for this object. */}}
{{- define "exporter.labels" -}}
{{- $root := first . }}
{{- $own := include "exporter.selectorLabels" $root | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/version" $root.Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/component" "metrics" }}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63) }}
{{- merge $own (default dict (rest . | first)) (default dict $root.Values.commonLabels) | toYaml }}
{{- end }}

{{- define "exporter.image" -}}
{{- $name := .Values.image.repository }}
{{- with default .Values.image.registry (default dict .Values.global).imageRegistry }}
{{- $name = printf "%s/%s" . $name }}
{{- end }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $name .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "exporter.pullSecrets" -}}
{{- with concat (default list (default dict .Values.global).imagePullSecrets) (default list .Values.imagePullSecrets) | uniq }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* A number as it is, not as 3.3554432e+07; a text such as 32MiB or 12h as it is. */}}
{{- define "exporter.quantity" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ int64 . }}{{ end }}
{{- end }}

{{/* What the schema cannot say: values that do not go together. */}}
{{- define "exporter.check" -}}
{{- $name := include "exporter.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "a service cannot be called %s: it takes a letter, then letters, digits and -: set fullnameOverride" $name) }}
{{- end }}
{{- range .Values.extraArgs }}
{{- if regexMatch "^--web.(listen-address|telemetry-path)(=|$)" . }}
{{- fail (printf "extraArgs: %s: probes and monitors would ask elsewhere; service.port and service.listenOnAllInterfaces say where it listens" .) }}
{{- end }}
{{- end }}
{{- if and .Values.config.inline .Values.config.existingConfigMap }}
{{- fail "config.inline and config.existingConfigMap: take one of them" }}
{{- end }}
{{- if and .Values.webConfig.tls (not .Values.webConfig.existingSecret) }}
{{- fail "webConfig.tls needs webConfig.existingSecret, where the certificate is" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
{{- fail "serviceMonitor.enabled and podMonitor.enabled: every pod would be scraped twice, take one of them" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enabled) }}
{{- fail "serviceMonitor.enabled needs service.enabled; podMonitor.enabled does not" }}
{{- end }}
{{- end }}

{{- define "exporter.configMapName" -}}
{{- if .Values.config.existingConfigMap }}
{{- .Values.config.existingConfigMap }}
{{- else if .Values.config.inline }}
{{- include "exporter.fullname" . }}-config
{{- end }}
{{- end }}

{{/* Whether the names of pods are asked for. */}}
{{- define "exporter.namesPods" -}}
{{- if has "pod" (default list .Values.exporter.groupBy) }}true{{ end }}
{{- end }}

{{- define "exporter.scheme" -}}
{{- ternary "https" "http" .Values.webConfig.tls }}
{{- end }}

{{- define "exporter.probe" -}}
{{- $probe := index . 0 }}
{{- $root := index . 1 }}
{{- if eq $root.Values.probes.type "tcp" }}
tcpSocket:
  port: metrics
{{- else }}
httpGet:
  path: {{ quote $probe.path }}
  port: metrics
  scheme: {{ include "exporter.scheme" $root | upper }}
  {{- with $root.Values.probes.httpHeaders }}
  httpHeaders:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{ toYaml (omit $probe "path") }}
{{- end }}

{{/* What ServiceMonitor and PodMonitor say of how to scrape. */}}
{{- define "exporter.endpoint" -}}
{{- $monitor := index . 0 }}
{{- $root := index . 1 }}
port: metrics
scheme: {{ include "exporter.scheme" $root }}
{{- if include "exporter.namesPods" $root }}
# The labels namespace, pod and container of a series are of the process that it counts, not of the exporter.
honorLabels: true
{{- end }}
{{- range $field := list "interval" "scrapeTimeout" "tlsConfig" "basicAuth" "relabelings" "metricRelabelings" }}
{{- with index $monitor $field }}
{{ $field }}: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
