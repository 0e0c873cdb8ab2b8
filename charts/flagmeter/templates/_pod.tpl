{{/*
What the pods of api, worker and operator have in common.
All templates take (dict "root" $ "component" "api").
*/}}

{{/* The part of a Deployment's spec above its pod template. */}}
{{- define "flagmeter.deploymentSpec" -}}
{{- include "flagmeter.requireSecrets" .root -}}
{{- $values := index .root.Values .component -}}
{{- if and (eq .component "worker") .root.Values.worker.autoscaling.enabled -}}
{{- include "flagmeter.checkAutoscaling" .root.Values.worker -}}
{{- else if not (kindIs "invalid" $values.replicas) -}}
replicas: {{ $values.replicas }}
{{ end -}}
revisionHistoryLimit: 3
# The new pod first: no request meets a closed door, a release that does not start changes nothing,
# two workers beside each other count nothing twice, and a second operator waits for the lease.
strategy:
  type: RollingUpdate
  rollingUpdate:
    maxUnavailable: 0
    maxSurge: 1
selector:
  matchLabels:
    {{- include "flagmeter.selectorLabels" . | nindent 4 }}
{{- end -}}

{{- define "flagmeter.podMetadata" -}}
labels:
  {{- include "flagmeter.labels" . | nindent 2 }}
{{- with .root.Values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Identity, security and place of a pod. The token of the API server is for the operator alone. */}}
{{- define "flagmeter.podSpec" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "flagmeter.componentName" . }}
automountServiceAccountToken: {{ eq .component "operator" }}
# Otherwise every Service of the namespace adds variables, and some of ours would look like settings.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
{{- $selector := dict "matchLabels" (include "flagmeter.selectorLabels" $ | fromYaml) }}
{{- $constraints := list }}
{{- range . }}
{{- $constraints = append $constraints (hasKey . "labelSelector" | ternary . (set (deepCopy .) "labelSelector" $selector)) }}
{{- end }}
topologySpreadConstraints:
  {{- toYaml $constraints | nindent 2 }}
{{- end }}
volumes:
  # The root file system is read-only.
  - name: tmp
    emptyDir:
      sizeLimit: 16Mi
{{- end -}}

{{/* What every container has: image, security, resources and a folder to write to. */}}
{{- define "flagmeter.containerBase" -}}
image: {{ include "flagmeter.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- with (index .root.Values .component).resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
{{- end -}}

{{/* Variables of every container; POD_IP comes first because listenHost may refer to it. */}}
{{- define "flagmeter.commonEnv" -}}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: FLAGMETER_LOG
  value: {{ .root.Values.log.level | quote }}
- name: FLAGMETER_LOG_FORMAT
  value: {{ .root.Values.log.format }}
{{- end -}}

{{/* A variable out of a Secret: (dict "name" "DATABASE_URL" "secret" "…" "key" "…"). */}}
{{- define "flagmeter.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end -}}

{{/* Variables of a part's own container, up to those that only it has. */}}
{{- define "flagmeter.env" -}}
{{- $database := .root.Values.database -}}
{{ include "flagmeter.commonEnv" . }}
- name: FLAGMETER_ADMIN_LISTEN
  value: {{ printf "%s:9090" .root.Values.listenHost | quote }}
{{ include "flagmeter.secretEnv" (dict "name" "DATABASE_URL" "secret" $database.existingSecret "key" (get $database.keys .component)) }}
{{- end -}}

{{- define "flagmeter.valkeyEnv" -}}
{{- with .root.Values.valkey -}}
{{ include "flagmeter.secretEnv" (dict "name" "VALKEY_URL" "secret" .existingSecret "key" .key) }}
{{- end -}}
{{- end -}}

{{/* Where alerts may go: the operator refuses a URL, and the worker a message, by the same rule. */}}
{{- define "flagmeter.alertsEnv" -}}
- name: FLAGMETER_ALLOW_PRIVATE_WEBHOOKS
  value: {{ .Values.alerts.allowPrivateAddresses | quote }}
{{- end -}}

{{/*
Probes. None of them depends on PostgreSQL or Valkey being there for a process to be left alive:
a restart fixes neither. The first answer may take a minute on a small box that is busy.
An api that has reached Valkey once stays ready without it, since it goes on answering; the same for
PostgreSQL. A worker that cannot count is not ready: nothing is sent to it, and an update waits.
*/}}
{{- define "flagmeter.probes" -}}
startupProbe:
  httpGet: { path: /livez, port: admin }
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /livez, port: admin }
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: { path: /readyz, port: admin }
  periodSeconds: 2
  timeoutSeconds: 2
{{- end -}}

{{/*
Brings the schema up to date before the part that needs it starts; under a lock, so any number of
pods may do it at once. Not a hook: a hook would run before a database of the same release exists.
*/}}
{{- define "flagmeter.migrateContainer" -}}
{{- $database := .root.Values.database -}}
- name: migrate
  command: [flagmeter, migrate, --wait-for-database, "120"]
  env:
    {{- include "flagmeter.commonEnv" . | nindent 4 }}
    {{- include "flagmeter.secretEnv" (dict "name" "DATABASE_URL" "secret" $database.existingSecret "key" $database.keys.migrate) | nindent 4 }}
  {{- include "flagmeter.containerBase" . | nindent 2 }}
{{- end -}}

{{/* Values that contradict each other, which a schema cannot see. */}}
{{- define "flagmeter.checkAutoscaling" -}}
{{- if not (kindIs "invalid" .replicas) -}}
{{- fail "\n\nworker.replicas and worker.autoscaling.enabled cannot both be set: two writers of one number.\nFor a fixed number of workers set worker.autoscaling.enabled to false; otherwise leave worker.replicas out, and set worker.autoscaling.minReplicas and maxReplicas.\n" -}}
{{- end -}}
{{- with .autoscaling -}}
{{- if gt (int64 .minReplicas) (int64 .maxReplicas) -}}
{{- fail (printf "\n\nworker.autoscaling.minReplicas (%d) must be no more than maxReplicas (%d).\n" (int64 .minReplicas) (int64 .maxReplicas)) -}}
{{- end -}}
{{- if not (kindIs "invalid" .fallbackReplicas) -}}
{{- if or (lt (int64 .fallbackReplicas) (int64 .minReplicas)) (gt (int64 .fallbackReplicas) (int64 .maxReplicas)) -}}
{{- fail "\n\nworker.autoscaling.fallbackReplicas must be from minReplicas to maxReplicas.\n" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* As the worker checks it (least_rollups_days). */}}
{{- define "flagmeter.checkKeep" -}}
{{- $least := add 37 (int64 .eventsDays) -}}
{{- if lt (int64 .rollupsDays) $least -}}
{{- fail (printf "\n\nworker.keep.rollupsDays (%d) must be at least %d: an event can be taken back for eventsDays after it was received, and its minute may be 35 days before that.\n" (int64 .rollupsDays) $least) -}}
{{- end -}}
{{- end -}}

{{/* The policy, for the operator. A number beyond a million is a float to a template, and would be written as one. */}}
{{- define "flagmeter.scalingEnv" -}}
- name: FLAGMETER_SCALE_DEPLOYMENT
  value: {{ include "flagmeter.componentName" (dict "root" . "component" "worker") }}
{{- with .Values.worker.autoscaling }}
- name: FLAGMETER_SCALE_MIN
  value: {{ .minReplicas | int64 | quote }}
- name: FLAGMETER_SCALE_MAX
  value: {{ .maxReplicas | int64 | quote }}
- name: FLAGMETER_SCALE_PRIOR_RATE
  value: {{ .eventsPerSecond | int64 | quote }}
- name: FLAGMETER_SCALE_HEADROOM
  value: {{ .headroom | quote }}
- name: FLAGMETER_SCALE_WAIT_SECONDS
  value: {{ .waitSeconds | quote }}
- name: FLAGMETER_SCALE_DRAIN_SECONDS
  value: {{ .drainSeconds | int64 | quote }}
- name: FLAGMETER_SCALE_INTERVAL_SECONDS
  value: {{ .intervalSeconds | int64 | quote }}
- name: FLAGMETER_SCALE_WINDOW_SECONDS
  value: {{ .windowSeconds | int64 | quote }}
- name: FLAGMETER_SCALE_STEP_SECONDS
  value: {{ .stepSeconds | int64 | quote }}
- name: FLAGMETER_SCALE_PAUSE_SECONDS
  value: {{ .pauseSeconds | int64 | quote }}
- name: FLAGMETER_SCALE_RETRY_SECONDS
  value: {{ .retrySeconds | int64 | quote }}
- name: FLAGMETER_SCALE_IDLE_SECONDS
  value: {{ .idleSeconds | int64 | quote }}
- name: FLAGMETER_SCALE_FAILURES
  value: {{ .failures | int64 | quote }}
{{- if not (kindIs "invalid" .fallbackReplicas) }}
- name: FLAGMETER_SCALE_FALLBACK
  value: {{ .fallbackReplicas | int64 | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Variables of the operator's container; the root context is what it takes. */}}
{{- define "flagmeter.operatorEnv" -}}
{{- $operator := dict "root" . "component" "operator" -}}
{{ include "flagmeter.env" $operator }}
{{- if .Values.operator.clusterWide }}
- name: FLAGMETER_WATCH_NAMESPACES
  value: "*"
{{- else if .Values.operator.watchNamespaces }}
- name: FLAGMETER_WATCH_NAMESPACES
  value: {{ append .Values.operator.watchNamespaces .Release.Namespace | uniq | join "," | quote }}
{{- end }}
{{- with .Values.encryption }}
{{- include "flagmeter.secretEnv" (dict "name" "FLAGMETER_ENCRYPTION_KEY" "secret" .existingSecret "key" .key) | nindent 0 }}
{{- end }}
{{- include "flagmeter.alertsEnv" . | nindent 0 }}
{{- if .Values.worker.autoscaling.enabled }}
{{- include "flagmeter.valkeyEnv" $operator | nindent 0 }}
{{- include "flagmeter.scalingEnv" . | nindent 0 }}
{{- end }}
- name: FLAGMETER_ROTATION_OVERLAP_SECONDS
  value: {{ .Values.auth.rotationOverlapSeconds | int64 | quote }}
{{- end -}}
