#!/usr/bin/env bash
# Starts the ranks of this machine as processes that find each other through torchrun's variables, and ends all of them when
# one fails. Its exit code is that of the first rank that failed.
#
#   NNODES=2 NODE_RANK=0 RANKS_PER_NODE=8 MASTER_ADDR=node-0 launchers/ranks.sh \
#     my_program
set -uo pipefail
if (($# == 0)); then
  echo "usage: [NNODES=1] [NODE_RANK=0] [RANKS_PER_NODE=1] [MASTER_ADDR=127.0.0.1] [MASTER_PORT=29500] $0 COMMAND..." >&2
  exit 2
fi
: "${NNODES:=1}" "${NODE_RANK:=0}" "${RANKS_PER_NODE:=1}"
# How long ranks may take to end after another has failed.
: "${GRACE_SECONDS:=30}"
export MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}" MASTER_PORT="${MASTER_PORT:-29500}"
export WORLD_SIZE=$((NNODES * RANKS_PER_NODE)) LOCAL_WORLD_SIZE=$RANKS_PER_NODE

signal_ranks() { jobs -pr | xargs -r kill "-$1" 2>/dev/null; }
# A scheduler's signal goes on to the ranks, which save and stop.
interrupted=
trap 'interrupted=1; signal_ranks TERM' TERM INT

for ((local_rank = 0; local_rank < RANKS_PER_NODE; local_rank++)); do
  RANK=$((NODE_RANK * RANKS_PER_NODE + local_rank)) LOCAL_RANK=$local_rank "$@" &
done

status=0 deadline=
while :; do
  wait -n
  code=$?
  # Without children left, or without one that ended: a signal ends `wait`, too.
  if ((code == 127)) && [[ -z $(jobs -p) ]]; then break; fi
  if [[ -n $interrupted ]] && ((code > 128)); then interrupted= && continue; fi
  if ((code != 0 && status == 0)); then
    status=$code
    signal_ranks TERM
    ranks=$(jobs -pr | tr '\n' ' ')
    (
      trap 'kill "$!"; exit' TERM
      sleep "$GRACE_SECONDS" & wait "$!"
      kill -KILL $ranks
    ) >/dev/null 2>&1 &
    deadline=$!
    disown "$deadline"
  fi
done
if [[ -n $deadline ]]; then kill "$deadline" 2>/dev/null; fi
exit "$status"
