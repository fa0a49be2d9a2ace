#!/usr/bin/env bash
# Whole nodes in a simulated network, each run decided by a seed.
#
#   scripts/sim.sh 1000             seeds 0 to 999
#   scripts/sim.sh 1000 5000        seeds 5000 to 5999
#   scripts/sim.sh replay 17 trace  seed 17 again, with all that happened (or: plan)
#   scripts/sim.sh mutants          every known fault, until a seed catches it
#   scripts/sim.sh twice 0 50       seeds 0 to 49, each twice, which must go alike
#   scripts/sim.sh gate             what every change has to pass
#   scripts/sim.sh report [N]       N seeds that follow from the commit; never fails
#
# `--mutant NAME` puts a known fault in, `--jobs N` sets how many runs go beside each other.
# SIM_LOG=debug in the environment shows the log of the nodes of a replayed seed.
# The program is actors/tests/sim; it needs Linux and a C compiler, to seed what it draws from the
# system.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly report_seeds=40

cache="${XDG_CACHE_HOME:-$HOME/.cache}/packhorse"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"

# Our own crates are slow without optimisation, and thousands of runs pay for building them so.
build=(
    cargo build --locked --quiet -p packhorse-actors --features sim --test sim
    --config profile.dev.package.packhorse-actors.opt-level=2
    --config profile.dev.package.packhorse-protocol.opt-level=3
    # As it is shipped: s2n-quic 1.91 panics in debug builds when a first packet and the answer to its
    # Retry both begin a connection, which goes well otherwise.
    --config profile.dev.package.s2n-quic-transport.debug-assertions=false
)
"${build[@]}" >&2
program="$("${build[@]}" --message-format=json | sed -n 's/.*"executable":"\([^"]*sim-[^"]*\)".*/\1/p' | tail -1)"
readonly program

case "${1:-gate}" in
    [0-9]*)
        count="$1"
        first=0
        shift
        if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
            first="$1"
            shift
        fi
        exec "$program" run "$first" "$count" "$@"
        ;;
    report)
        # 32 bits of the commit: far away from the fixed seeds, and the same for everybody.
        if ! commit="$(git rev-parse HEAD 2>/dev/null)"; then
            echo "there is no commit here, and no seeds of its own"
            exit 0
        fi
        first="$((16#${commit:0:8}))"
        echo "seeds of this commit, from $first on; what they find does not fail the check"
        "$program" run "$first" "${2:-$report_seeds}" || true
        ;;
    *)
        exec "$program" "$@"
        ;;
esac
