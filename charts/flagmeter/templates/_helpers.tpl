{{/*
Names and labels. A template that is about one of the three parts takes
(dict "root" $ "component" "api"); the part's values are then .root.Values.api.
*/}}

{{/* Prefix of all names: 53 characters at most, so that the longest suffix still fits into 63. */}}
{{- define "flagmeter.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-flagmeter" .Release.Name) (contains "flagmeter" .Release.Name) -}}
{{- .Values.fullnameOverride | default $name | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of a part's objects. */}}
{{- define "flagmeter.componentName" -}}
{{- printf "%s-%s" (include "flagmeter.fullname" .root) .component -}}
{{- end -}}

{{- define "flagmeter.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* What never changes in the life of a release, so that Deployments may select by it. */}}
{{- define "flagmeter.selectorLabels" -}}
app.kubernetes.io/name: flagmeter
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* Labels of every object and of the pods. */}}
{{- define "flagmeter.labels" -}}
{{ include "flagmeter.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{/* Name, namespace and labels of a part's object. */}}
{{- define "flagmeter.metadata" -}}
name: {{ include "flagmeter.componentName" . }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "flagmeter.labels" . | nindent 2 }}
{{- end -}}

{{/* Stops the rendering with everything that is missing, not only the first of it. */}}
{{- define "flagmeter.requireSecrets" -}}
{{- $missing := list -}}
{{- if not .Values.database.existingSecret -}}
{{- with .Values.database.keys -}}
{{- $missing = append $missing (printf "database.existingSecret: a Secret with the PostgreSQL connection strings under the keys %s, %s, %s and %s" .migrate .api .worker .operator) -}}
{{- end -}}
{{- end -}}
{{- with .Values.valkey -}}
{{- if not .existingSecret -}}
{{- $missing = append $missing (printf "valkey.existingSecret: a Secret with the Valkey connection string under the key %s" .key) -}}
{{- end -}}
{{- end -}}
{{- with .Values.encryption -}}
{{- if not .existingSecret -}}
{{- $missing = append $missing (printf "encryption.existingSecret: a Secret with the base64 text of 32 random bytes under the key %s" .key) -}}
{{- end -}}
{{- end -}}
{{- with .Values.auth -}}
{{- if and (eq .mode "required") (not .adminTokenSecret.name) -}}
{{- $missing = append $missing (printf "auth.adminTokenSecret.name: a Secret with the admin token, at least 16 characters, under the key %s" .adminTokenSecret.key) -}}
{{- end -}}
{{- end -}}
{{- if $missing -}}
{{- fail (printf "\n\nThese values must be set, each to the name of a Secret in namespace %s:\n  - %s\nThe chart's README shows how to make them.\n" .Release.Namespace (join "\n  - " $missing)) -}}
{{- end -}}
{{- end -}}
