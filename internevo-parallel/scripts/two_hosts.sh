#!/bin/bash
# Runs COMMAND as four MPI ranks on two "hosts" of this machine: two network namespaces, joined by a veth pair, each with a host
# name of its own, so that Open MPI talks TCP between them. Needs root, Linux' `ip` and `mpirun`; leaves nothing behind.
#
#   scripts/two_hosts.sh COMMAND [ARG…]
#
# RANKS (default 4) is the number of ranks, half of them on each host. Environment variables reach the ranks.
# Exit code: COMMAND's; 77 where this machine does not allow it, with the reason.
set -euo pipefail

refuse() { echo "two_hosts.sh: $1" >&2; exit 77; }

[ $# -gt 0 ] || { echo "usage: $0 COMMAND [ARG…]" >&2; exit 2; }
[ "$(id -u)" = 0 ] || refuse "making network namespaces needs root"
command -v ip >/dev/null || refuse "there is no \`ip\` (package iproute2)"
command -v mpirun >/dev/null || refuse "there is no \`mpirun\` (package openmpi-bin)"

ranks=${RANKS:-4}
id=$$
# Two runs at a time must not meet: names and network carry the process number.
a=ievA$id b=ievB$id net=10.$((64 + id / 250 % 64)).$((id % 250))
folder=$(mktemp -d)

clean_up() {
    for namespace in "$a" "$b"; do
        # Whoever still runs in there would keep it alive.
        ip netns pids "$namespace" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true
        ip netns delete "$namespace" 2>/dev/null || true
    done
    rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

make_hosts() {
    ip netns add "$a" && ip netns add "$b" &&
        ip link add "vA$id" netns "$a" type veth peer name "vB$id" netns "$b" &&
        ip -n "$a" address add "$net.1/24" dev "vA$id" && ip -n "$b" address add "$net.2/24" dev "vB$id" &&
        ip -n "$a" link set lo up && ip -n "$b" link set lo up &&
        ip -n "$a" link set "vA$id" up && ip -n "$b" link set "vB$id" up
}
reason=$(make_hosts 2>&1) || refuse "this machine makes no network namespaces: $reason"

# What mpirun calls instead of ssh: AGENT HOST COMMAND…
cat >"$folder/agent" <<AGENT
#!/bin/bash
[ "\$1" = $net.2 ] || { echo "no host \$1" >&2; exit 1; }
shift
exec ip netns exec $b unshare --uts bash -c "hostname hostB; \$*"
AGENT
chmod +x "$folder/agent"
printf '%s slots=%d\n' "$net.1" $((ranks - ranks / 2)) "$net.2" $((ranks / 2)) >"$folder/hosts"

# Every variable of the caller that a rank may look for travels by name.
exports=()
while IFS= read -r variable; do exports+=(-x "$variable"); done < <(compgen -e | grep -E '^(INTERNEVO_|RUST_|RAYON_)' || true)

# mpirun itself runs on the first host and starts that host's ranks; the others it starts through the agent.
ip netns exec "$a" unshare --uts bash -c 'hostname hostA; exec "$@"' hostA \
    mpirun --allow-run-as-root -n "$ranks" --hostfile "$folder/hosts" --map-by slot "${exports[@]}" \
    --mca plm_rsh_agent "$folder/agent" --mca btl self,vader,tcp --mca btl_tcp_if_include "$net.0/24" \
    --mca oob_tcp_if_include "$net.0/24" --mca mpi_yield_when_idle 1 "$@"
