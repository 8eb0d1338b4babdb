#!/bin/sh
# Start one machine of the cluster, in the foreground: `start head`, the controller, or `start node`.
set -eu

as_munge() { runuser -u munge -- "$@"; }

key=/etc/munge/munge.key # on a volume that all machines share
case "${1:-}" in
head)
    daemon=slurmctld
    [ -s "$key" ] || as_munge mungekey --create --keyfile "$key"
    ;;
node)
    daemon=slurmd
    until [ -s "$key" ]; do sleep 0.2; done
    ;;
*)
    echo "start ${1:-}: say start head or start node." >&2
    exit 2
    ;;
esac

install -d -o munge -g munge /run/munge
as_munge munged

exec "$daemon" -D
