#!/usr/bin/env bash
# Brings all of it up in a cluster on this machine, made by kind, and sends a request through.
#
#   deploy/kubernetes/kind.sh up     makes the cluster, builds the image, applies the manifests, waits, and asks
#   deploy/kubernetes/kind.sh down   deletes the cluster
#
# Needs docker, kind and kubectl. What the operator of Prometheus takes is applied where there is one.
set -euo pipefail

readonly cluster=chancery image=ghcr.io/chancery/chancery:0.1.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here root=$here/../.. secrets=$here/../../.chancery/kind

for tool in docker kind kubectl; do
  command -v "$tool" >/dev/null || { echo "kind.sh: there is no $tool on PATH" >&2 && exit 1; }
done

on() { kubectl --context "kind-$cluster" --namespace chancery "$@"; }

forwards=()
# The port $2 of the service $1 as the port $3 of this machine, until the script ends.
forward() {
  on port-forward "service/$1" "$3:$2" >/dev/null &
  forwards+=("$!")
}
stop_forwarding() {
  local forward
  for forward in "${forwards[@]}"; do kill "$forward" 2>/dev/null || true; done
}
trap stop_forwarding EXIT

up() {
  kind get clusters 2>/dev/null | grep -qx "$cluster" || kind create cluster --name "$cluster" --wait 5m
  docker build --file "$root/deploy/docker/Dockerfile" --tag "$image" "$root"
  kind load docker-image "$image" --name "$cluster"

  on apply --filename "$here/00-namespace.yaml"
  CHANCERY=${CHANCERY:-} "$here/secrets" "$secrets" | on apply --filename -
  local file
  for file in "$here"/[1-9]*.yaml; do
    if [[ $file == */80-prometheus.yaml ]] && ! on get crd podmonitors.monitoring.coreos.com >/dev/null 2>&1; then
      echo "kind.sh: no operator of Prometheus here: ${file##*/} is left out" >&2
      continue
    fi
    on apply --server-side --filename "$file"
  done
  local part
  for part in statefulset/chancery-postgres statefulset/chancery-redis deployment/chancery-control-plane deployment/chancery-rate-limiter \
    statefulset/chancery-envoy deployment/chancery-demo; do
    on rollout status "$part" --timeout 5m
  done

  forward chancery-control-plane 8080 18080
  forward chancery-envoy 10000 18081
  local token try
  token=$(cat "$secrets/token")
  for ((try = 1; ; try++)); do
    curl --silent --show-error --fail --max-time 10 --header "authorization: Bearer $token" --header 'content-type: application/yaml' \
      --data-binary "@$here/resources.yaml" http://127.0.0.1:18080/api/v1/apply && break
    ((try < 30)) || { echo "kind.sh: the API does not take the resources" >&2 && exit 1; }
    sleep 1
  done
  for ((try = 1; ; try++)); do
    curl --silent --show-error --fail --max-time 10 --header 'host: demo.localhost' http://127.0.0.1:18081/ && break
    ((try < 60)) || { echo "kind.sh: no answer through Envoy" >&2 && exit 1; }
    sleep 1
  done
  echo
  echo "kind.sh: it works. The administrator's token is in $secrets/token."
}

case ${1:-} in
  up) up ;;
  down) kind delete cluster --name "$cluster" ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac
