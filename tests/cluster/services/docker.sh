#!/usr/bin/env bash
# A Docker engine of our own, as root without systemd, everything in one folder.
#   docker.sh up DIR [BRIDGE]   start it and print the variable that commands and tests need
#   docker.sh down DIR          remove its containers and stop it
# The machine's netfilter rules stay as they are: containers reach this machine, and nothing beyond it.
set -euo pipefail
action=$1 root=$2 bridge=${3:-172.31.249.1/24}
export DOCKER_HOST=unix://$root/docker.sock

up() {
  mkdir -p "$root"/{data,exec}
  nohup dockerd --data-root "$root/data" --exec-root "$root/exec" --host "$DOCKER_HOST" --pidfile "$root/pid" \
    --iptables=false --ip6tables=false --bip "$bridge" </dev/null >"$root/log" 2>&1 &
  local until=$((SECONDS + 30))
  until docker info >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$until" ] || { tail "$root/log" >&2; exit 1; }
    sleep 0.1
  done
  echo "export DOCKER_HOST=$DOCKER_HOST"
}

down() {
  [ -s "$root/pid" ] || return 0
  local containers
  containers=$(docker ps --all --quiet)
  # shellcheck disable=SC2086 # one word for each container
  [ -z "$containers" ] || docker rm --force $containers >/dev/null
  kill "$(cat "$root/pid")" 2>/dev/null || true
}

PATH=$PATH:/usr/sbin:/sbin
"$action"
