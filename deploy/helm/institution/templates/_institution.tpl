{{/* What the client finds in its container: the proxy's address, and the volumes but base models. */}}
{{- define "confide.inside" -}}
{{- with .Values.egress.proxy -}}
env:
  - {name: HTTPS_PROXY, value: {{ . | quote }}}
{{ end -}}
{{- with .Values.egress.proxySecret -}}
env:
  - {name: HTTPS_PROXY, valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: proxy}}}
{{ end -}}
volumeMounts:
  - {name: state, mountPath: /var/lib/confide}
  - {name: anchor, mountPath: /srv/confide-anchor}
  - {name: tmp, mountPath: /tmp}
  - {name: site, mountPath: /var/lib/confide/site.toml, subPath: site.toml, readOnly: true}
  - {name: data, mountPath: /data, subPath: {{ .Values.data.subPath | quote }}, readOnly: true}
{{- end }}

{{- define "confide.resources" -}}
{{- $resources := deepCopy .Values.resources }}
{{- if .Values.gpu.count }}
{{- $limits := default dict $resources.limits }}
{{- $resources = set $resources "limits" (set $limits .Values.gpu.resource .Values.gpu.count) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* The two paths of site.toml that lie on disks of their own. */}}
{{- define "confide.check" -}}
{{- $site := fromToml .Values.site }}
{{- with $site.Error }}{{ fail (printf "site.toml: %s" .) }}{{ end }}
{{- if ne (dig "state" "anchor" "" $site) "/srv/confide-anchor" }}
{{- fail "site.toml: [state] anchor must be \"/srv/confide-anchor\", a disk of its own; else an old copy of the ledger goes unnoticed" }}
{{- end }}
{{- if ne (dig "state" "dir" "state" $site) "state" }}
{{- fail "site.toml: [state] dir must be left out: the chart keeps the ledger on the volume \"state\", apart from the anchor" }}
{{- end }}
{{- $devices := splitList "," (dig "compute" "device" "auto" $site) }}
{{- if and (gt (int .Values.gpu.count) 1) (ne (len $devices) (int .Values.gpu.count)) }}
{{- fail (printf "gpu.count is %d, but site.toml names %d device: [compute] device = \"cuda:0,cuda:1\" uses two" (int .Values.gpu.count) (len $devices)) }}
{{- end }}
{{- if and .Values.egress.proxy .Values.egress.proxySecret }}
{{- fail "egress.proxy and egress.proxySecret must not both be set: the pod calls one proxy" }}
{{- end }}
{{- if not (hasPrefix "/data/" (dig "dataset" "path" "" $site)) }}
{{- fail "site.toml: [dataset] path must begin with \"/data/\", where the records are mounted" }}
{{- end }}
{{- end }}
