#!/usr/bin/env bash
# A Slurm cluster of two nodes on this machine, without accounting, everything in one folder.
#   slurm.sh up DIR [FIRST_PORT]   start it and print the variable that commands and tests need
#   slurm.sh down DIR              stop exactly what was started
# Each node has two stand-in GPUs: Slurm counts and assigns them, nothing can compute on them.
set -euo pipefail
action=$1 root=$2 port=${3:-26817}

# Started daemons must not keep the caller's pipe open.
quietly() { "$@" </dev/null >>"$root/log/start.log" 2>&1; }

start_munge() {
  [ -f "$root/munge/key" ] || (umask 077 && head -c 128 /dev/urandom >"$root/munge/key")
  quietly munged --force --key-file="$root/munge/key" --socket="$root/munge/socket" --pid-file="$root/run/munged.pid" \
    --log-file="$root/munge/log" --seed-file="$root/munge/seed"
}

write_configuration() {
  local user host node
  user=$(id -un) host=$(hostname -s)
  cat >"$root/etc/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$root/munge/socket
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool/%n
SlurmctldPidFile=$root/run/slurmctld.pid
SlurmdPidFile=$root/run/slurmd-%n.pid
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# Nodes may claim more cores than the machine has.
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=100000,bf_interval=1
ReturnToService=2
KillWait=5
CONF
  for node in 1 2; do
    echo "NodeName=n$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + node)) CPUs=4 RealMemory=4000 Gres=gpu:2"
  done >>"$root/etc/slurm.conf"
  {
    echo "PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE"
    echo "PartitionName=interactive Nodes=n1 MaxTime=INFINITE"
  } >>"$root/etc/slurm.conf"
  # A gres needs device files to count; any will do.
  echo "Name=gpu File=/dev/tty[1-2]" >"$root/etc/gres.conf"
}

await() { # SECONDS COMMAND…
  local until=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 0.1
  done
}

nodes_idle() { [ "$(timeout 5 sinfo -h -N -p batch -t idle | wc -l)" = 2 ]; }
answering() { (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

up() {
  mkdir -p "$root"/{etc,state,log,run,munge,spool/n1,spool/n2}
  chmod 0755 "$root"/* && chmod 0700 "$root/state"
  start_munge
  write_configuration
  export SLURM_CONF=$root/etc/slurm.conf
  quietly slurmctld -i -c
  await 30 answering || { tail "$root/log/slurmctld.log" >&2; exit 1; }
  for node in n1 n2; do quietly slurmd -N "$node"; done
  await 30 nodes_idle || { tail "$root"/log/slurmd-*.log >&2; exit 1; }
  echo "export SLURM_CONF=$SLURM_CONF"
}

down() {
  for file in "$root"/run/slurmd-*.pid "$root"/run/slurmctld.pid "$root"/run/munged.pid; do
    if [ -s "$file" ]; then kill "$(cat "$file")" 2>/dev/null || true; fi
  done
}

PATH=$PATH:/usr/sbin:/sbin
"$action"
