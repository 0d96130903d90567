{{- define "enclavescale.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "enclavescale.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "enclavescale.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "enclavescale.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Arguments of the following: a dict of `root` (the chart's scope) and `role` (worker, page, agent). */}}

{{- define "enclavescale.selector" -}}
app.kubernetes.io/name: {{ include "enclavescale.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "enclavescale.labels" -}}
{{ include "enclavescale.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "enclavescale.image" -}}
{{- $image := .root.Values.image -}}
{{- $name := printf "%s-%s" $image.repository .role -}}
{{- with get $image.digests .role -}}
{{ $name }}@{{ . }}
{{- else -}}
{{ $name }}:{{ default .root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "enclavescale.serviceAccount" -}}
{{- default (ternary (include "enclavescale.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Properties of a role's Kafka client, as a JSON object. */}}
{{- define "enclavescale.kafka" -}}
{{- $all := mergeOverwrite (dict "client.id" (printf "enclavescale-%s" .role)) (deepCopy .root.Values.kafka.properties) -}}
{{- mergeOverwrite $all (deepCopy (default dict (get .root.Values.kafka.roleProperties .role))) | toJson -}}
{{- end -}}

{{/* Whether the role quotes with the node's TEE, which belongs to root. */}}
{{- define "enclavescale.tsm" -}}
{{- if and (ne .role "page") (eq .root.Values.tee.kind "tsm") -}}true{{- end -}}
{{- end -}}

{{- define "enclavescale.podSecurity" -}}
{{- if include "enclavescale.tsm" . -}}
runAsUser: 0
runAsGroup: 0
{{- else -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
{{- end }}
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "enclavescale.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- if include "enclavescale.tsm" . }}
  add: [DAC_OVERRIDE]      # files of configfs-tsm keep root as their owner, whoever makes the entry
{{- if and .root.Values.tee.appArmorProfile (semverCompare ">=1.30.0-0" .root.Capabilities.KubeVersion.Version) }}
appArmorProfile: {type: {{ .root.Values.tee.appArmorProfile }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Every pod: nobody's token, no host namespaces, where it runs. */}}
{{- define "enclavescale.pod" -}}
{{- $own := get .root.Values .role -}}
serviceAccountName: {{ include "enclavescale.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
hostNetwork: false
hostPID: false
hostIPC: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with $own.affinity }}
affinity: {{ toJson . }}
{{- end }}
securityContext:
  {{- include "enclavescale.podSecurity" . | nindent 2 }}
{{- end -}}

{{- define "enclavescale.mounts" -}}
- {name: config, mountPath: /etc/enclavescale, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if get .root.Values.kafka.secrets .role }}
- {name: kafka, mountPath: /etc/kafka, readOnly: true}
{{- end }}
{{- if include "enclavescale.tsm" . }}
- {name: configfs, mountPath: /sys/kernel/config}
{{- range $index, $path := .root.Values.tee.devices }}
- {name: tee-device-{{ $index }}, mountPath: {{ $path }}}
{{- end }}
{{- else if ne .role "page" }}
- {name: simulated-tee, mountPath: /etc/simulated-tee, readOnly: true}
{{- end }}
{{- end -}}

{{- define "enclavescale.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- with get .root.Values.kafka.secrets .role }}
- name: kafka
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- if include "enclavescale.tsm" . }}
- name: configfs
  hostPath: {path: /sys/kernel/config, type: Directory}
{{- range $index, $path := .root.Values.tee.devices }}
- name: tee-device-{{ $index }}
  hostPath: {path: {{ $path }}, type: CharDevice}
{{- end }}
{{- else if ne .role "page" }}
- name: simulated-tee
  secret: {secretName: {{ .root.Values.tee.simulatedSecret }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* `startFailures`: how often it may fail to answer before it has to, every 5 s. `tcp`: where the kubelet has no certificate. */}}
{{- define "enclavescale.probes" -}}
{{- range $kind, $way := dict "startup" "livez" "liveness" "livez" "readiness" "readyz" }}
{{ $kind }}Probe:
  {{- if $.tcp }}
  tcpSocket: {port: http}
  {{- else }}
  httpGet: {path: /{{ $way }}, port: http}
  {{- end }}
  timeoutSeconds: 5
  periodSeconds: {{ get (dict "startup" 5 "liveness" 20 "readiness" 10) $kind }}
  failureThreshold: {{ get (dict "startup" $.startFailures "liveness" 3 "readiness" 3) $kind }}
{{- end }}
{{- end -}}
