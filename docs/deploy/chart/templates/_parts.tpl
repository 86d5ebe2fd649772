{{- define "flywheel.claim" -}}
{{ .Values.storage.claim | default (printf "%s-data" .Release.Name) }}
{{- end }}
{{- define "flywheel.user" -}}
{ runAsNonRoot: true, runAsUser: 10001, fsGroup: 10001 }
{{- end }}
{{- define "flywheel.data" -}}
{ name: data, persistentVolumeClaim: { claimName: {{ include "flywheel.claim" . }} } }
{{- end }}
