#!/usr/bin/env bash
# Three nodes under load from each to each, and everything that can happen to them, for as long as asked.
#
#   scripts/chaos.sh 10          ten minutes, with choices of its own
#   scripts/chaos.sh 10 7        the choices of seed 7
#
# Nodes are killed alone and together, frozen and stopped; links are cut, in one direction too, and
# bad; where a small file system can be mounted, disks are filled and freed as well. Then everything
# is healed, and all that was accepted has to be stored and handled: nothing lost, nothing twice,
# nothing out of order. Its last line is the report with the counts.
#
# It fails too when nothing was killed or nothing was accepted. Of a run that fails, the lines of its
# steps and the folder with every node's log are kept, and both are named.
#
# CHAOS_PROGRAM names the binary; otherwise a release build of this checkout is made.
set -euo pipefail

program="${CHAOS_PROGRAM:-}"
if [[ -n "$program" ]]; then
    program="$(realpath -- "$program")"
fi
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

minutes="${1:-}"
seed="${2:-$(((RANDOM << 15) | RANDOM))}"
if [[ ! "$minutes" =~ ^[0-9]{1,4}$ || ! "$seed" =~ ^[0-9]+$ ]] || ((10#$minutes < 1 || 10#$minutes > 1200)); then
    echo "usage: scripts/chaos.sh MINUTES [SEED], at most 1200 minutes" >&2
    exit 2
fi
minutes="$((10#$minutes))"

if [[ -z "$program" ]]; then
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/packhorse/target}"
    cargo build --locked --release --quiet
    program="$CARGO_TARGET_DIR/release/packhorse"
fi

scratch="$(mktemp -d)"
readonly scratch lines="$scratch/lines"
lab="" beat=""
is_kept=""
end_beat() {
    # With its sleep, which would hold the output open.
    if [[ -n "$beat" ]]; then pkill -P "$beat" 2>/dev/null || true; kill "$beat" 2>/dev/null || true; fi
    beat=""
}
cleanup() {
    end_beat
    # The lab ends its nodes, its mounts and its folder itself, when it is told to end.
    if [[ -n "$lab" ]] && kill -TERM "$lab" 2>/dev/null; then wait "$lab" || true; fi
    if [[ -z "$is_kept" ]]; then rm -rf -- "$scratch"; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Whether a small file system can be mounted is tried, not guessed: root in a container often cannot.
can_mount() {
    mkdir "$scratch/disk"
    mount -t tmpfs -o size=1m packhorse-chaos "$scratch/disk" 2>/dev/null && umount "$scratch/disk"
}
disk="" full="" weights="6, 1, 1, 1, 1, 1, 1"
if can_mount; then
    disk=', disk = "320MiB", may_end = 9'
    # SYNC: one more choice than without, hence one more weight.
    full='{ sequence = [{ fill = "any *", left = "5MiB" }, { sleep = "200ms..2s", why = "a disk is full" }, { kill = "any *" }, { free = "*" }] },'
    weights="$weights, 1"
else
    echo "chaos: no small file system can be mounted here (it takes root): no disk is filled" >&2
fi

cat >"$scratch/chaos.toml" <<END
name = "chaos"
about = "Everything at random for $minutes minutes, and nothing is lost"
timeout = "$((minutes + 10))m"

nodes = [{ name = "node", count = 3$disk }]

steps = [
  { start = "*" },
  { pair = "*" },
  { load = "orders", from = "*", to = "*", rate = 20 },
  { consume = "orders", on = "*" },
  { repeat = "${minutes}m", steps = [
    { sleep = "10ms..400ms", why = "a random moment" },
    { choose = [
      { kill = "any *" },
      { kill = "*", note = "all at once" },
      { stop = "any *" },
      { sequence = [{ pause = "any *" }, { sleep = "100ms..2s", why = "frozen" }, { resume = "*" }] },
      { sequence = [{ partition = "any *" }, { sleep = "100ms..2s", why = "cut off" }, { kill = "any *" }] },
      { sequence = [{ partition = "any *", one_way = true }, { sleep = "100ms..2s", why = "heard by nobody" }] },
      { sequence = [{ impair = "any *", loss = "20%", latency = "40ms", jitter = "40ms", duplicate = "5%", reorder = "5%" }, { sleep = "100ms..2s", why = "a bad link" }] },
      $full
    ], weights = [$weights] },
    { sleep = "1ms..100ms", why = "nobody is there" },
    { heal = "*" },
    { start = "*", within = "60s" },
  ] },
  { heal = "*" },
  { settle = "5m" },
  { assert = "dead list", on = "*", that = "\$.total == 0" },
]
END

echo "chaos: $minutes minutes, seed $seed"
"$program" lab run "$scratch/chaos.toml" --seed "$seed" --jsonl >"$lines" &
lab="$!"

# A line a minute for whoever watches.
(
    while sleep 60; do
        echo "chaos: $((SECONDS / 60)) min, $(grep -c '"step":"kill".*"outcome":"passed"' "$lines" || true) kill steps"
    done
) &
beat="$!"
status=0
# Signals are heard while bash waits, not while it runs something.
wait "$lab" || status="$?"
lab=""
end_beat

report="$(tail -n 1 "$lines")"
# number NAME: a count of the report; nothing when it has none.
number() {
    sed -n "s/.*\"$1\":\\([0-9]*\\).*/\\1/p" <<<"$report"
}
if [[ "$status" -eq 0 && "$report" != *'"outcome":"passed"'* ]]; then
    echo "chaos: the run did not pass" >&2
    status=1
fi
if [[ "$status" -eq 0 && ("$(number kills)" -lt 1 || "$(number accepted)" -lt 1) ]]; then
    echo "chaos: nothing was killed, or nothing was accepted: that shows nothing" >&2
    status=1
fi
if [[ "$status" -ne 0 ]]; then
    is_kept=yes
    grep '"outcome":"failed"' "$lines" | sed '$d' | head -5 || true
    echo "chaos: the scenario and every step are in $scratch" >&2
fi
echo "$report"
exit "$status"
