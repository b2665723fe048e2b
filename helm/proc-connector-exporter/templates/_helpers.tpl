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

{{/* Larger charts write names, as `a` or as `name: a`; Kubernetes takes the latter only. */}}
{{- define "exporter.pullSecrets" -}}
{{- $secrets := list }}
{{- range concat (default list (default dict .Values.global).imagePullSecrets) (default list .Values.imagePullSecrets) }}
{{- if kindIs "string" . }}
{{- $secrets = append $secrets (dict "name" .) }}
{{- else }}
{{- $secrets = append $secrets (dict "name" .name) }}
{{- end }}
{{- end }}
{{- with uniq $secrets }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* A number as it is, not as 3.3554432e+07; a text such as 32MiB or 12h as it is. */}}
{{- define "exporter.quantity" -}}
{{- if or (kindIs "string" .) (ne (float64 .) (float64 (int64 .))) }}{{ . }}{{ else }}{{ int64 . }}{{ end }}
{{- end }}

{{/* The exporter's arguments, as a JSON list. Of two for the same flag the later one wins. */}}
{{- define "exporter.args" -}}
{{- $values := .Values }}
{{- $host := ternary "" "[$(HOST_IP)]" $values.service.listenOnAllInterfaces }}
{{- $args := list (printf "--web.listen-address=%s:%d" $host (int64 $values.service.port)) }}
{{- if eq $values.mode "exact" }}
{{- $args = append $args "--attribution=taskstats" }}
{{- with $values.exact.user }}
{{- $args = append $args (printf "--user=%d" (int64 .)) }}
{{- end }}
{{- else }}
{{- $args = append $args "--attribution=procfs" }}
{{- end }}
{{- with $values.exporter.events }}
{{- $args = append $args (printf "--events=%s" (join "," .)) }}
{{- end }}
{{- with $values.exporter.groupBy }}
{{- $args = append $args (printf "--group.by=%s" (join "," .)) }}
{{- end }}
{{- if $values.exporter.groupHistograms }}
{{- $args = append $args "--group.histograms" }}
{{- end }}
{{- $quantities := list
  (list "--limit.series" $values.exporter.seriesLimit)
  (list "--limit.idle" $values.exporter.seriesIdle)
  (list "--receive-buffer.bytes" $values.exporter.receiveBufferBytes)
  (list "--canary.interval" $values.exporter.canaryInterval)
  (list "--web.max-requests" $values.exporter.maxRequests) }}
{{- range $quantities }}
{{- if not (kindIs "invalid" (last .)) }}
{{- $args = append $args (printf "%s=%s" (first .) (include "exporter.quantity" (last .))) }}
{{- end }}
{{- end }}
{{- if $values.exporter.enableLifecycle }}
{{- $args = append $args "--web.enable-lifecycle" }}
{{- end }}
{{- $args = append $args (printf "--log.level=%s" $values.exporter.logLevel) }}
{{- $args = append $args (printf "--log.format=%s" $values.exporter.logFormat) }}
{{- if include "exporter.configMapName" . }}
{{- $args = append $args (printf "--config.file=/etc/proc-connector-exporter/config/%s" $values.config.key) }}
{{- end }}
{{- if $values.webConfig.existingSecret }}
{{- $args = append $args (printf "--web.config.file=/etc/proc-connector-exporter/web/%s" $values.webConfig.key) }}
{{- end }}
{{- concat $args (default list $values.extraArgs) | toJson }}
{{- end }}

{{/* What is wrong with a text as the value of a flag, or nothing: (list FLAG TEXT UNITS), the first and the last
     from files/flags.json. */}}
{{- define "exporter.wrongValue" -}}
{{- $flag := index . 0 }}
{{- $text := index . 1 }}
{{- $factors := index . 2 }}
{{- $isRight := and (regexMatch $flag.pattern $text) (not (and $flag.not (regexMatch (default "" $flag.not) $text))) }}
{{- if and (eq $text "") (hasKey $flag "most") }}
{{- $isRight = false }}
{{- else if and $isRight (hasKey $flag "most") }}
{{- $number := 0.0 }}
{{- range regexFindAll "[0-9.]+[A-Za-z]*" $text -1 }}
{{- $unit := regexFind "[A-Za-z]+" . | trimSuffix "B" | trimSuffix "i" }}
{{- $number = addf $number (mulf (regexFind "[0-9.]+" . | float64) (index $factors $unit)) }}
{{- end }}
{{- $isRight = and (ge $number $flag.least) (le $number $flag.most) }}
{{- if and $flag.orZero (eq $number 0.0) }}
{{- $isRight = true }}
{{- end }}
{{- end }}
{{- if not $isRight }}must be {{ $flag.what }}, got {{ $text | squote }}{{ end }}
{{- end }}

{{/* Refuses arguments and variables with which the exporter would not start. files/flags.json says what it takes: a
     test of the exporter writes that file from the flags themselves. */}}
{{- define "exporter.checkArguments" -}}
{{- $known := .Files.Get "files/flags.json" | fromJson }}
{{- $given := list }}
{{- range $variable := .Values.extraEnv }}
{{- range $name, $flag := $known.flags }}
{{- if eq $variable.name $flag.variable }}
{{- /* What is taken from elsewhere is known on the node only. */}}
{{- $text := ternary "$()" (default "" $variable.value | toString) (hasKey $variable "valueFrom") }}
{{- $given = append $given (dict "source" $variable.name "name" $name "text" $text) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $argument := include "exporter.args" . | fromJsonArray }}
{{- $name := regexFind "^--[^=]+" $argument }}
{{- $text := "true" }}
{{- if contains "=" $argument }}
{{- $text = trimPrefix (printf "%s=" $name) $argument }}
{{- else if not (hasKey $known.flags $name) }}
{{- $name = printf "--%s" (trimPrefix "--no-" $name) }}
{{- $text = "false" }}
{{- end }}
{{- $given = append $given (dict "source" $name "name" $name "text" $text) }}
{{- end }}
{{- $wrong := list }}
{{- range $setting := $given }}
{{- if not (contains "$(" $setting.text) }}
{{- $flag := index $known.flags $setting.name }}
{{- with include "exporter.wrongValue" (list $flag $setting.text $known.units) }}
{{- $wrong = append $wrong (printf "%s %s" $setting.source .) }}
{{- end }}
{{- end }}
{{- end }}
{{- include "exporter.refuse" $wrong }}
{{- /* The later one wins, an argument over a variable; what is empty or off counts as not set. */}}
{{- $set := dict }}
{{- range $given }}
{{- $_ := set $set .name . }}
{{- end }}
{{- range $name, $setting := deepCopy $set }}
{{- if has $setting.text (list "" "false") }}
{{- $_ := unset $set $name }}
{{- end }}
{{- end }}
{{- /* Else it would be said of flags that the chart sets that they have no effect with these. */}}
{{- range $name, $why := dict
  "--replay" "every pod would serve one capture instead of its node: replay it with the program"
  "--web.systemd-socket" "there is no systemd in a container" }}
{{- with get $set $name }}
{{- fail (printf "%s cannot be set here: %s" .source $why) }}
{{- end }}
{{- end }}
{{- range $name, $setting := $set }}
{{- $flag := index $known.flags $name }}
{{- if and $flag.needs (not (hasKey $set $flag.needs)) }}
{{- $wrong = append $wrong (printf "%s has no effect without %s" $setting.source $flag.needs) }}
{{- end }}
{{- range $other := $flag.noEffectWith }}
{{- if hasKey $set $other }}
{{- $wrong = append $wrong (printf "%s has no effect with %s" $setting.source (index $set $other).source) }}
{{- end }}
{{- end }}
{{- end }}
{{- include "exporter.refuse" $wrong }}
{{- include "exporter.checkPrivileges" (list . $set) }}
{{- end }}

{{/* Refuses what needs more than the pod is given: (list $ SET), SET by name of the flag. */}}
{{- define "exporter.checkPrivileges" -}}
{{- $root := index . 0 }}
{{- $set := index . 1 }}
{{- $wrong := list }}
{{- with get $set "--group.by" }}
{{- if and (contains "pod" .text) (not (include "exporter.namesPods" $root)) }}
{{- $wrong = append $wrong (printf "%s=%s: exporter.groupBy sets it, and gives the exporter what it takes to name pods" .source .text) }}
{{- end }}
{{- end }}
{{- if not (contains "pod" (dig "--group.by" "text" "" $set)) }}
{{- range $name := list "--kubernetes.api-server" "--kubernetes.token-file" "--kubernetes.ca-file" "--kubernetes.node-name" "--containers.socket" }}
{{- with get $set $name }}
{{- $wrong = append $wrong (printf "%s has no effect unless exporter.groupBy has pod" .source) }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq $root.Values.mode "unprivileged" }}
{{- if eq (dig "--attribution" "text" "" $set) "taskstats" }}
{{- $wrong = append $wrong "--attribution=taskstats needs mode exact" }}
{{- end }}
{{- with get $set "--exec-names" }}
{{- /* The default profiles of all runtimes permit perf_event_open with a capability only. With another profile it
       depends on the node's kernel.perf_event_paranoid. */}}
{{- $context := default dict $root.Values.podSecurityContext }}
{{- $profile := default dict $context.seccompProfile }}
{{- if and (eq .text "sideband") (eq (default "RuntimeDefault" $profile.type) "RuntimeDefault") }}
{{- $wrong = append $wrong (printf "%s=sideband needs mode exact, or a podSecurityContext.seccompProfile that permits perf_event_open" .source) }}
{{- end }}
{{- end }}
{{- end }}
{{- with get $set "--oom-kills" }}
{{- /* A mount of it gives the file, not the right to open the device. */}}
{{- if eq .text "kmsg" }}
{{- $wrong = append $wrong (printf "%s=kmsg needs /dev/kmsg, which only privileged containers may open: with exact.user=0 the same log is read without it" .source) }}
{{- end }}
{{- end }}
{{- if or (eq $root.Values.mode "unprivileged") (not $root.Values.exact.user) }}
{{- with get $set "--user" }}
{{- $wrong = append $wrong (printf "%s: exact.user sets it, and gives the exporter what it takes to become that user" .source) }}
{{- end }}
{{- end }}
{{- include "exporter.refuse" $wrong }}
{{- end }}

{{- define "exporter.refuse" -}}
{{- with . }}
{{- fail (printf "the exporter would not start: %s" (join "; " .)) }}
{{- end }}
{{- end }}

{{/* What the schema cannot say: values that do not go together. */}}
{{- define "exporter.check" -}}
{{- $name := include "exporter.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "a service cannot be called %s: it takes a letter, then letters, digits and -: set fullnameOverride" $name) }}
{{- end }}
{{- include "exporter.checkForms" . }}
{{- $elsewhere := "probes and monitors would ask elsewhere; service.port and service.listenOnAllInterfaces say where it listens" }}
{{- range .Values.extraArgs }}
{{- if regexMatch "^--web.(listen-address|telemetry-path)(=|$)" . }}
{{- fail (printf "extraArgs: %s: %s" . $elsewhere) }}
{{- end }}
{{- end }}
{{- if and .Values.exporter.groupHistograms (not .Values.exporter.groupBy) }}
{{- fail "exporter.groupHistograms needs exporter.groupBy, whose labels it gives to the histograms" }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if eq .name "PROC_CONNECTOR_EXPORTER_WEB_TELEMETRY_PATH" }}
{{- fail (printf "extraEnv: %s: %s" .name $elsewhere) }}
{{- end }}
{{- end }}
{{- include "exporter.checkArguments" . }}
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
{{- if .Values.service.enabled }}
{{- include "exporter.checkService" .Values.service }}
{{- end }}
{{- $names := list "exporter" }}
{{- range $value := list "extraInitContainers" "sidecars" }}
{{- range index $.Values $value }}
{{- if has .name $names }}
{{- fail (printf "%s: the pod has another container called %s" $value .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}
{{- end }}

{{/* What an API server refuses in a service. */}}
{{- define "exporter.checkService" -}}
{{- if and .nodePort (eq .type "ClusterIP") }}
{{- fail "service.nodePort needs service.type NodePort or LoadBalancer" }}
{{- end }}
{{- if and (eq (default "" .clusterIP) "None") (ne .type "ClusterIP") }}
{{- fail (printf "service.clusterIP None makes a headless service, which cannot be of the type %s" .type) }}
{{- end }}
{{- if and (gt (len (default list .ipFamilies)) 1) (not (has .ipFamilyPolicy (list "PreferDualStack" "RequireDualStack"))) }}
{{- fail "service.ipFamilies: two of them need service.ipFamilyPolicy PreferDualStack or RequireDualStack" }}
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
