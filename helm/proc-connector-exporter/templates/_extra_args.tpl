{{/* The question which flag was meant by a name, or nothing: (list NAME FLAGS). */}}
{{- define "exporter.likelyFlag" -}}
{{- $wanted := index . 0 | lower | replace "_" "-" | replace "." "-" | trimAll " -" }}
{{- $names := list }}
{{- range $name, $flag := index . 1 }}
{{- if not (hasPrefix "no-" $wanted) }}
{{- $names = append $names $name }}
{{- else if $flag.isSwitch }}
{{- $names = append $names (printf "--no-%s" (trimPrefix "--" $name)) }}
{{- end }}
{{- end }}
{{- $likely := "" }}
{{- /* A user who leaves out parts of a name means the shortest flag that has the others. */}}
{{- range $name := $names }}
{{- $plain := replace "." "-" $name | trimAll "-" }}
{{- if and $wanted (contains (printf "-%s-" $wanted) (printf "-%s-" $plain)) (or (not $likely) (lt (len $name) (len $likely))) }}
{{- $likely = $name }}
{{- end }}
{{- end }}
{{- if not $likely }}
{{- /* Else the flag that begins and ends most like it: two thirds of the longer name have to be alike. */}}
{{- $most := 665 }}
{{- range $name := $names }}
{{- $plain := replace "." "-" $name | trimAll "-" }}
{{- $shorter := min (len $wanted) (len $plain) | int }}
{{- $first := 0 }}
{{- $last := 0 }}
{{- range $length := untilStep 1 (add1 $shorter | int) 1 }}
{{- if hasPrefix (trunc $length $wanted) $plain }}
{{- $first = $length }}
{{- end }}
{{- if hasSuffix (trunc (mul -1 $length | int) $wanted) $plain }}
{{- $last = $length }}
{{- end }}
{{- end }}
{{- $common := div (mul 1000 (min $shorter (add $first $last))) (max (len $wanted) (len $plain)) }}
{{- if gt $common (int64 $most) }}
{{- $most = $common }}
{{- $likely = $name }}
{{- end }}
{{- end }}
{{- end }}
{{- with $likely }}; did you mean {{ . }}?{{ end }}
{{- end }}

{{/* What is wrong with the form of an item of extraArgs, or nothing: (list ITEM NEXT FLAGS). What its value may be is
     checked with all other values. */}}
{{- define "exporter.wrongForm" -}}
{{- $item := index . 0 }}
{{- $next := index . 1 }}
{{- $flags := index . 2 }}
{{- $name := splitList "=" $item | first }}
{{- $word := splitList " " $name | first }}
{{- $hasValue := contains "=" $item }}
{{- $positive := printf "--%s" (trimPrefix "--no-" $name) }}
{{- if contains "\n" $item }}
{{- printf "%q has several lines" $item }}
{{- else if hasKey $flags $name }}
{{- if (index $flags $name).isSwitch }}
{{- $text := trimPrefix (printf "%s=" $name) $item }}
{{- if and $hasValue (not (has $text (list "true" "false"))) }}
{{- printf "%s must be one of true, false, got %s" $name (squote $text) }}
{{- end }}
{{- else if not $hasValue }}
{{- if and $next (not (hasPrefix "-" $next)) }}
{{- printf "write %s=%s as one item" $name $next }}
{{- else }}
{{- printf "%s needs a value: write %s=VALUE as one item" $name $name }}
{{- end }}
{{- end }}
{{- else if and (hasPrefix "--no-" $name) (hasKey $flags $positive) }}
{{- if not (index $flags $positive).isSwitch }}
{{- printf "unknown flag %s: %s needs a value: write %s=VALUE as one item" $name $positive $positive }}
{{- else if $hasValue }}
{{- printf "%s takes no value: write %s, or %s=false" $name $name $positive }}
{{- end }}
{{- else if and (contains " " $name) (hasKey $flags $word) }}
{{- printf "write %s=%s" $word (regexReplaceAllLiteral "^[ =]+" (trimPrefix $word $item) "") }}
{{- else if hasPrefix "-" $name }}
{{- printf "unknown flag %s%s" $name (include "exporter.likelyFlag" (list $name $flags)) }}
{{- else }}
{{- printf "%s is no flag: write --FLAG=VALUE as one item%s" (squote $item) (include "exporter.likelyFlag" (list $name $flags)) }}
{{- end }}
{{- end }}

{{/* Refuses items of extraArgs that are no arguments of the exporter. */}}
{{- define "exporter.checkForms" -}}
{{- $flags := (.Files.Get "files/flags.json" | fromJson).flags }}
{{- $items := default list .Values.extraArgs }}
{{- range $at, $item := $items }}
{{- $next := slice (append $items "") (add1 $at) | first }}
{{- with include "exporter.wrongForm" (list $item $next $flags) }}
{{- $message := printf "extraArgs: %s" . }}
{{- fail $message }}
{{- /* `helm lint` only logs that, and goes on. No template has the message as its name: this ends it too. */}}
{{- include $message . }}
{{- end }}
{{- end }}
{{- end }}
