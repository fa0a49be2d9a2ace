#!/usr/bin/env bash
# Every check of this repository, in the order of how soon they tell something.
#
#   scripts/check.sh              all of them
#   scripts/check.sh fmt clippy   only these
#
# A step that fails does not keep the next from running: one run shows everything that is wrong.
# A step that cannot be done here (the advisory database needs a network) says so in the table at
# the end, and is neither a failure nor counted as done.
#
# Builds go to $CARGO_TARGET_DIR, by default to a folder in the user's cache which all checkouts
# share. Tools that are missing are built once from the registry, at a fixed version, into the
# same cache; nothing is installed into ~/.cargo.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly steps_all=(fetch fmt clippy test fault sim doctest doc deny)
readonly nextest_version=0.9.143
readonly deny_version=0.20.2
# A tool takes one to three minutes on two cores; past this the registry or the machine hangs.
readonly install_seconds_max=900
readonly advisories_seconds_max=120

cache="${XDG_CACHE_HOME:-$HOME/.cache}/packhorse"
readonly cache
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
export PATH="$cache/tools/bin:$PATH"
export GIT_TERMINAL_PROMPT=0
if [[ -n "${CI:-}" ]]; then
    # Nobody builds here twice: incremental files would only cost time and disk.
    export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
fi

if [[ -t 1 ]]; then
    # The steps write into a pipe, so they cannot see the terminal behind it.
    export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-always}"
fi

scratch="$(mktemp -d)"
readonly scratch
# Tests that cannot be done here say so in this file, by name.
export CHECK_SKIPPED="$scratch/skipped"
trap 'rm -rf -- "$scratch"' EXIT

# install NAME VERSION: builds a cargo tool into the cache, bounded in time.
# The profile trades the tool's speed for a third of its build time.
install() {
    local name="$1" version="$2"
    echo "$name $version is not here: building it (at most $install_seconds_max s)"
    timeout --kill-after=10 "$install_seconds_max" \
        cargo install --locked --quiet "$name" --version "$version" \
        --root "$cache/tools" --target-dir "$cache/tools/build" \
        --config 'profile.release.debug=false' \
        --config 'profile.release.lto="off"' \
        --config 'profile.release.codegen-units=16' \
        --config 'profile.release.opt-level=1' || return 1
    rm -rf -- "$cache/tools/build"
}

# All steps below run where `set -e` is off (see `run`), so each line that matters says `|| return`.
# They return 0 for done, 1 for failed, 3 for "could not be done here"; the reason then lies in
# $scratch/note.

step_fetch() {
    # Also the proof that Cargo.lock fits the manifests: nothing after this may change it.
    cargo fetch --locked
}

step_fmt() {
    cargo fmt --all --check
}

step_clippy() {
    cargo clippy --locked --workspace --all-targets -- -D warnings
}

step_test() {
    if ! cargo nextest --version >/dev/null 2>&1; then
        install cargo-nextest "$nextest_version" || return 1
    fi
    # Whole networks are made of namespaces; where that cannot be, those tests say so by name.
    if [[ "$(id -u)" -eq 0 ]] && ! command -v ip >/dev/null && command -v apt-get >/dev/null; then
        echo "iproute2 is not here: installing it"
        timeout 300 apt-get install -y -qq iproute2 >/dev/null || echo "iproute2 could not be installed"
    fi
    cargo nextest run --locked --workspace --profile ci
}

# The build that can be told to fail: its own clippy, and the tests that need it. It comes after the
# default build, which is the one that is shipped and carries none of it.
step_fault() {
    cargo clippy --locked --workspace --all-targets \
        --features sim,packhorse-protocol/testing -- -D warnings || return 1
    cargo nextest run --locked --workspace --profile ci \
        --features sim,packhorse-protocol/testing \
        -E 'binary(restart) + binary(insight) + binary(mutants) + binary(sim_rules)
            + (binary(lab_shipped) & test(/^fault::/))'
}

# Simulated networks of whole nodes: fixed seeds, known faults that have to be seen, and, without a
# say in the outcome, seeds of this commit's own.
step_sim() {
    if [[ "$(uname -s)" != Linux ]] || ! command -v cc >/dev/null || ! command -v timeout >/dev/null; then
        echo "skipped: it needs Linux, cc and timeout" >"$scratch/note"
        return 3
    fi
    scripts/sim.sh gate || return 1
    scripts/sim.sh report
}

step_doctest() {
    cargo test --locked --workspace --doc
}

step_doc() {
    RUSTDOCFLAGS="-D warnings ${RUSTDOCFLAGS:-}" cargo doc --locked --workspace --no-deps
}

step_deny() {
    if [[ "$(cargo deny --version 2>/dev/null)" != "cargo-deny $deny_version" ]]; then
        if ! install cargo-deny "$deny_version"; then
            echo "skipped: cargo-deny $deny_version could not be built here" >"$scratch/note"
            return 3
        fi
    fi
    cargo deny --locked --offline check --hide-inclusion-graph bans licenses sources || return 1
    if timeout --kill-after=10 "$advisories_seconds_max" cargo deny fetch db >"$scratch/fetch" 2>&1; then
        cargo deny --locked --offline check --hide-inclusion-graph advisories || return 1
    else
        sed -n 's/^fatal: /advisory database: /p' "$scratch/fetch"
        echo "bans, licenses and sources are ok; advisories skipped: their database is out of reach here" >"$scratch/note"
        return 3
    fi
}

summary=()
failed=0

# run STEP: runs one step, says how it ended and how long it took.
run() {
    local step="$1" start="$SECONDS" status=0 word
    : >"$scratch/note"
    printf '\n==> %s\n' "$step"
    # `tee` keeps what the runners count for the last line; pipefail keeps the step's own status.
    "step_$step" 2>&1 | tee "$scratch/$step.log" || status="${PIPESTATUS[0]}"
    case "$status" in
        0) word="ok" ;;
        3) word="$(cat "$scratch/note")" ;;
        *) word="FAILED" failed=1 ;;
    esac
    printf '<== %s: %s (%d s)\n' "$step" "$word" "$((SECONDS - start))"
    summary+=("$(printf '%-8s %5d s  %s' "$step" "$((SECONDS - start))" "$word")")
}

# count WORD FILE...: the sum of the numbers before WORD in the runners' closing lines.
count() {
    local word="$1"
    shift
    sed 's/\x1b\[[0-9;]*m//g' "$@" 2>/dev/null |
        awk -v word="$word" '
            /^ *Summary \[/ || /^test result:/ {
                gsub(/[,;]/, "")
                for (i = 2; i <= NF; i++) if ($i == word) sum += $(i - 1)
            }
            END { print sum + 0 }' || true
}

steps=("$@")
if [[ "${#steps[@]}" -eq 0 ]]; then
    steps=("${steps_all[@]}")
fi
for step in "${steps[@]}"; do
    if [[ " ${steps_all[*]} " != *" $step "* ]]; then
        echo "check.sh: no step '$step'; there are: ${steps_all[*]}" >&2
        exit 2
    fi
done

rustc --version
cargo --version
echo "target: $CARGO_TARGET_DIR"
for step in "${steps[@]}"; do
    run "$step"
done

printf '\n%s\n' "All steps, $SECONDS s:"
printf '  %s\n' "${summary[@]}"
if [[ -s "$CHECK_SKIPPED" ]]; then
    sort -u "$CHECK_SKIPPED"
fi
logs=()
for step in test fault doctest; do
    if [[ -f "$scratch/$step.log" ]]; then
        logs+=("$scratch/$step.log")
    fi
done
if [[ "${#logs[@]}" -gt 0 ]]; then
    printf 'tests: %d passed, %d failed\n' \
        "$(count passed "${logs[@]}")" "$(($(count failed "${logs[@]}") + $(count timed "${logs[@]}")))"
fi
exit "$failed"
