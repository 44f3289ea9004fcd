{{/* Names, labels and the merged configuration. What a template needs of the settings it takes from here. */}}

{{- define "product-photo-detector.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "product-photo-detector.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "product-photo-detector.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A part's labels, of (list $ component). */}}
{{- define "product-photo-detector.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "product-photo-detector.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: {{ $root.Chart.Name }}
{{- end -}}

{{- define "product-photo-detector.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "product-photo-detector.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "product-photo-detector.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "product-photo-detector.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* registry/repository:tag or @digest, of (list image fallback-tag). */}}
{{- define "product-photo-detector.image" -}}
{{- $image := index . 0 -}}
{{- $name := $image.repository -}}
{{- if $image.registry -}}{{- $name = printf "%s/%s" $image.registry $name -}}{{- end -}}
{{- if $image.digest -}}{{ printf "%s@%s" $name $image.digest }}{{- else -}}{{ printf "%s:%s" $name (default (index . 1) $image.tag) }}{{- end -}}
{{- end -}}

{{/* The service's image; also the one of the release's test. */}}
{{- define "product-photo-detector.apiImage" -}}
{{- $tag := .Chart.AppVersion -}}
{{- if gt (int .Values.gpu.count) 0 -}}{{- $tag = printf "%s-gpu" $tag -}}{{- end -}}
{{- include "product-photo-detector.image" (list .Values.image $tag) -}}
{{- end -}}

{{/* configuration.yaml with the values' settings laid over it; a name it does not hold stops the rendering. */}}
{{- define "product-photo-detector.configuration" -}}
{{- $tree := .Files.Get "files/configuration.yaml" | fromYaml -}}
{{- range $section, $body := .Values.configuration -}}
{{- if not (hasKey $tree $section) -}}{{- fail (printf "configuration.%s is not a known section" $section) -}}{{- end -}}
{{- $known := get $tree $section -}}
{{- range $name, $value := $body -}}
{{- if not (hasKey $known $name) -}}{{- fail (printf "configuration.%s.%s is not a known setting" $section $name) -}}{{- end -}}
{{- $_ := set $known $name $value -}}
{{- end -}}
{{- end -}}
{{- if and (gt (int .Values.gpu.count) 0) (eq $tree.model.device "auto") -}}{{- $_ := set $tree.model "device" "cuda" -}}{{- end -}}
{{- include "product-photo-detector.refuse" (list . $tree) -}}
{{- toYaml $tree -}}
{{- end -}}

{{/* What fits no schema: values that contradict each other. Of (list $ settings). */}}
{{- define "product-photo-detector.refuse" -}}
{{- $values := (index . 0).Values -}}
{{- $settings := index . 1 -}}
{{- if and $values.redis.enabled $values.redis.external.existingSecret -}}
{{- fail "redis.enabled and redis.external.existingSecret exclude each other: set redis.enabled to false" -}}
{{- end -}}
{{- if and $values.jwt.existingSecret (not (and $settings.jwt.issuer $settings.jwt.audience)) -}}
{{- fail "jwt.existingSecret needs configuration.jwt.issuer and configuration.jwt.audience" -}}
{{- end -}}
{{- if and $values.modelStore.existingClaim (hasSuffix ":latest" $settings.model.tag) -}}
{{- fail "modelStore.existingClaim needs configuration.model.tag with a version: pods that start later would serve another latest" -}}
{{- end -}}
{{- if gt (int $values.autoscaling.minReplicas) (int $values.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas must not be above autoscaling.maxReplicas" -}}
{{- end -}}
{{- if le (float64 $settings.api.shutdown_grace) (float64 $settings.api.timeout) -}}
{{- fail "configuration.api.shutdown_grace must be above configuration.api.timeout, or a rollout cuts requests off" -}}
{{- end -}}
{{- end -}}

{{/* Whether callers are asked who they are: "yes" or nothing. */}}
{{- define "product-photo-detector.asksWho" -}}
{{- $settings := include "product-photo-detector.configuration" . | fromYaml -}}
{{- if or .Values.auth.existingSecret .Values.jwt.existingSecret $settings.jwt.key_set -}}yes{{- end -}}
{{- end -}}

{{/* Bytes of the largest body the service takes: a full batch, and 65536 for the form around it. */}}
{{- define "product-photo-detector.maxBody" -}}
{{- $settings := include "product-photo-detector.configuration" . | fromYaml -}}
{{- add (mul (int64 $settings.batch.max_images) (int64 $settings.photo.max_bytes)) 65536 -}}
{{- end -}}

{{- define "product-photo-detector.address" -}}
http://{{ include "product-photo-detector.fullname" . }}:{{ .Values.service.port }}
{{- end -}}

{{/* Secret and entry of the chart's own Redis's password. */}}
{{- define "product-photo-detector.redisPassword" -}}
name: {{ default (printf "%s-redis" (include "product-photo-detector.fullname" .)) .Values.redis.auth.existingSecret }}
key: {{ .Values.redis.auth.key }}
{{- end -}}

{{/* Replicas over hosts and zones, of (list $ component). */}}
{{- define "product-photo-detector.topologySpread" -}}
{{- $root := index . 0 -}}
{{- $labels := include "product-photo-detector.selectorLabels" . -}}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: {{ $root.Values.topologySpread.whenUnsatisfiable }}
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels: {{- $labels | nindent 6 }}
{{- end }}
{{- end -}}

{{/* An Ingress; of (dict "root" $ "name" "component" "ingress" values "port" "paths" "annotations"). */}}
{{- define "product-photo-detector.ingress" -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ .name }}
  labels: {{- include "product-photo-detector.labels" (list .root .component) | nindent 4 }}
  annotations: {{- merge (deepCopy .ingress.annotations) .annotations | toYaml | nindent 4 }}
spec:
  ingressClassName: {{ .ingress.className }}
  {{- if .ingress.tlsSecret }}
  tls:
    - hosts: [{{ .ingress.host | quote }}]
      secretName: {{ .ingress.tlsSecret }}
  {{- end }}
  rules:
    - host: {{ .ingress.host | quote }}
      http:
        paths:
          {{- range .paths }}
          - path: {{ . }}
            pathType: Prefix
            backend:
              service:
                name: {{ $.name }}
                port: {name: http}
          {{- end }}
{{- end -}}
