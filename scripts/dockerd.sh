#!/usr/bin/env bash
# Starts and stops a Docker engine where none runs as a service (CI containers).
#   scripts/dockerd.sh start|stop       stop ends only an engine that start has started; needs root
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
mkdir -p .tools
pid_file=$PWD/.tools/dockerd.pid
log=$PWD/.tools/dockerd.log

# True while the process in the pid file is the engine that `start` has started.
running() {
  [ -f "$pid_file" ] && [ "$(cat "/proc/$(cat "$pid_file")/comm" 2>/dev/null)" = dockerd ]
}

start() {
  docker info >/dev/null 2>&1 && { say "docker: an engine is already running"; return; }
  [ "$(id -u)" = 0 ] || fail "docker: no engine is running; start it with: sudo systemctl start docker"
  command -v dockerd >/dev/null || fail "docker: no dockerd; run scripts/setup.sh --docker"
  local flags
  # The default storage driver first, then one that works everywhere. Publishing ports needs iptables, so it stays on.
  for flags in "" "--storage-driver=vfs"; do
    # shellcheck disable=SC2086 # flags
    setsid dockerd --host unix:///var/run/docker.sock --pidfile /var/run/callbound-dockerd.pid $flags >"$log" 2>&1 </dev/null &
    echo $! >"$pid_file"
    wait_ready && { say "docker: engine started (pid $(cat "$pid_file"), log $log)"; return; }
    stop
  done
  tail -n 20 "$log" >&2
  fail "docker: the engine does not start; its log: $log"
}

wait_ready() {
  local _
  for _ in $(seq 150); do
    docker info >/dev/null 2>&1 && return
    running || return 1
    sleep 0.2
  done
  return 1
}

stop() {
  if running; then
    local pid _
    pid=$(cat "$pid_file")
    kill "$pid"
    for _ in $(seq 150); do
      running || break
      sleep 0.2
    done
    ! running || kill -9 "$pid"
    say "docker: engine stopped"
  fi
  rm -f "$pid_file"
}

case ${1:-} in
  start | stop) "$1" ;;
  *) fail "usage: scripts/dockerd.sh start|stop" ;;
esac
