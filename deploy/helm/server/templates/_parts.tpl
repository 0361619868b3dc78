{{- define "confide.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "confide.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* No rights, and nothing to write to but the volumes. */}}
{{- define "confide.container" -}}
workingDir: /var/lib/confide
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  privileged: false
  readOnlyRootFilesystem: true
{{- end }}

{{/* The user of the image. OnRootMismatch: the kubelet would open private keys to the group at each start. */}}
{{- define "confide.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* One pod of the cluster may have the volume, so two processes can never work on one home or one ledger. */}}
{{- define "confide.claim" -}}
accessModes: [ReadWriteOncePod]
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests: {storage: {{ .size }}}
{{- end }}

{{- define "confide.baseModelMounts" -}}
{{- range $index, $base := .Values.baseModels }}
- name: base-{{ $index }}
  mountPath: /var/lib/confide/models/{{ $base.name }}
  subPath: {{ default "" $base.subPath | quote }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "confide.baseModelVolumes" -}}
{{- range $index, $base := .Values.baseModels }}
- name: base-{{ $index }}
  persistentVolumeClaim: {claimName: {{ $base.claim | quote }}, readOnly: true}
{{- end }}
{{- end }}
