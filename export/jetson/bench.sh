#!/usr/bin/env bash
# Measure a suite with trtexec on a Jetson, with the clocks locked, and write down the conditions.
# Not yet run on a device: tested with simulated tools.
set -euo pipefail

readonly TENSORRT_BIN=/usr/src/tensorrt/bin # JetPack installs trtexec here, outside PATH

usage() {
    cat <<'TEXT'
usage: bench.sh [--keep-clocks] [--suite FILE] [--out FILE]

  --keep-clocks  do not lock the clocks (locking needs sudo and jetson_clocks)
  --suite FILE   what to measure; default: benchmarks/suites/jetson.toml
  --out FILE     result (JSON); default: jetson.json. Power mode, clocks and temperatures before
                 and after go to FILE.conditions.txt
TEXT
}

fail() {
    printf 'bench.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

# The power mode, the clocks and the temperatures, as far as the board tells them.
conditions() {
    printf '== %s, %s\n' "$1" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
    cat /etc/nv_tegra_release 2>/dev/null || true
    nvpmodel -q 2>&1 || true
    sudo -n jetson_clocks --show 2>&1 || true
    local zone
    for zone in /sys/class/thermal/thermal_zone*; do
        [[ -r $zone/type && -r $zone/temp ]] || continue
        # Some zones are switched off and cannot be read.
        printf '%s: %s m°C\n' "$(cat "$zone/type")" "$(cat "$zone/temp" 2>/dev/null || echo off)"
    done
}

lock_clocks() {
    command -v jetson_clocks >/dev/null ||
        fail 'jetson_clocks is not here; is this a Jetson? Give --keep-clocks to measure anyway' 3
    stored=$(mktemp -u)
    sudo jetson_clocks --store "$stored"
    trap 'sudo jetson_clocks --restore "$stored"; sudo rm -f "$stored"' EXIT
    sudo jetson_clocks
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
suite=$root/benchmarks/suites/jetson.toml
out=jetson.json
lock=yes
while (($#)); do
    case $1 in
    --keep-clocks) lock=no ;;
    --suite | --out)
        (($# > 1)) || { usage >&2; fail "$1 needs a file" 2; }
        if [[ $1 == --suite ]]; then suite=$2; else out=$2; fi
        shift
        ;;
    -h | --help)
        usage
        exit
        ;;
    *)
        usage >&2
        fail "unknown argument $1" 2
        ;;
    esac
    shift
done

PATH=$PATH:$TENSORRT_BIN
command -v trtexec >/dev/null || fail 'trtexec is not here; run: sudo apt install tensorrt' 3
command -v edgeseg >/dev/null || fail "edgeseg is not here; run: pip install '$root[export,train]'" 3
[[ -r $suite ]] || fail "cannot read the suite $suite"

if [[ $lock == yes ]]; then
    lock_clocks
fi
conditions before >"$out.conditions.txt"
edgeseg bench run --suite "$suite" --out "$out"
conditions after >>"$out.conditions.txt"
printf 'wrote %s and %s\n' "$out" "$out.conditions.txt"
