#!/usr/bin/env bash
# Prints a paper's claims beside what was measured: scripts/paper_table.sh PAPER DATASET [RESULTS]
# Of the newest sweep of that dataset under outputs/, or, where the paper's file asks for no sweep, of all that is there;
# where there is none, the table kept under docs/results/RESULTS-{gpu,cpu}/.
set -euo pipefail
cd "$(dirname "$0")/.."
paper=$1 dataset=$2 results=${3:-$2}
diffq=.venv/bin/diffq
[ -x "$diffq" ] || diffq=diffq

newest=""
for plan in outputs/sweeps/*/plan.jsonl; do
    [ -e "$plan" ] && grep -q "\"points/$dataset/" "$plan" || continue
    if [ -z "$newest" ] || [ "$plan" -nt "$newest" ]; then newest=$plan; fi
done
if [ -n "$newest" ] && grep -q "^contests:" "conf/paper/$paper.yaml"; then
    exec "$diffq" report "paper=$paper"
elif [ -n "$newest" ]; then
    echo "Measured in $(dirname "$newest"), the newest sweep of $dataset here:"
    exec "$diffq" report "$(dirname "$newest")" "paper=$paper"
fi
for kept in "docs/results/$results"-{gpu,cpu}/"paper-$paper.md"; do
    if [ -e "$kept" ]; then
        echo "There is no sweep of $dataset under outputs/; this is $kept (to measure it here: docs/reproduce.md)."
        echo
        exec cat "$kept"
    fi
done
echo "Nothing has been measured on $dataset yet: docs/reproduce.md says how." >&2
exit 1
