#!/usr/bin/env bash
# An ssh server of our own on 127.0.0.1 that takes one key, everything in one folder.
#   sshd.sh up DIR [PORT]   start it and print the variables that the tests need
#   sshd.sh down DIR        stop it
# A shell that ssh starts sees the Slurm cluster of the caller (SLURM_CONF).
set -euo pipefail
action=$1 root=$2 port=${3:-2322}

up() {
  mkdir -p "$root" && chmod 0700 "$root"
  [ "$(id -u)" != 0 ] || mkdir -p /run/sshd
  for name in host identity; do
    [ -f "$root/$name" ] || ssh-keygen -q -t ed25519 -N '' -f "$root/$name"
  done
  cp "$root/identity.pub" "$root/authorized_keys"
  cat >"$root/sshd_config" <<CONF
ListenAddress 127.0.0.1
Port $port
HostKey $root/host
PidFile $root/sshd.pid
AuthorizedKeysFile $root/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv SLURM_CONF=${SLURM_CONF:-}
CONF
  /usr/sbin/sshd -f "$root/sshd_config" -E "$root/log" </dev/null >/dev/null 2>&1
  echo "export PIPELINE_TEST_SSH_PORT=$port PIPELINE_TEST_SSH_IDENTITY=$root/identity"
}

down() { if [ -s "$root/sshd.pid" ]; then kill "$(cat "$root/sshd.pid")" 2>/dev/null || true; fi; }

"$action"
