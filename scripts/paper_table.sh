#!/usr/bin/env bash
# Prints a paper's claims beside what was measured: scripts/paper_table.sh PAPER DATASET
# Of the newest sweep of that dataset under outputs/; where there is none, the table kept under docs/results/.
set -euo pipefail
cd "$(dirname "$0")/.."
paper=$1 dataset=$2
diffq=.venv/bin/diffq
[ -x "$diffq" ] || diffq=diffq

newest=""
for plan in outputs/sweeps/*/plan.jsonl; do
    [ -e "$plan" ] && grep -q "\"points/$dataset/" "$plan" || continue
    if [ -z "$newest" ] || [ "$plan" -nt "$newest" ]; then newest=$plan; fi
done
if [ -n "$newest" ]; then
    echo "Measured in $(dirname "$newest"), the newest sweep of $dataset here:"
    exec "$diffq" report "$(dirname "$newest")" "paper=$paper"
fi
for kept in "docs/results/$dataset"-{gpu,cpu}/"paper-$paper.md"; do
    if [ -e "$kept" ]; then
        echo "There is no sweep of $dataset under outputs/; this is $kept (to measure it here: docs/reproduce.md)."
        echo
        exec cat "$kept"
    fi
done
echo "Nothing has been measured on $dataset yet: run scripts/reproduce_$dataset.sh 25 on a GPU, or on a CPU" \
    "diffq train dataset=$dataset model=gaussian_mini trainer=cpu and then diffq sweep experiment=${dataset}_cpu." >&2
exit 1
