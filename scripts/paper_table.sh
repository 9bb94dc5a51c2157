#!/usr/bin/env bash
# Prints a paper's claims beside what was measured: scripts/paper_table.sh PAPER DATASET[,DATASET…] [RESULTS]
# Of the newest sweep of these datasets under outputs/, or, where the paper's file asks for no sweep, of all points that
# are there; where there is none, the table kept under docs/results/RESULTS-{gpu,cpu}/.
set -euo pipefail
cd "$(dirname "$0")/.."
paper=$1 datasets=$2 results=${3:-$2}
diffq=.venv/bin/diffq
[ -x "$diffq" ] || diffq=diffq

kept=""
for file in "docs/results/$results"-{cpu,gpu}/"paper-$paper.md"; do
    [ -e "$file" ] && kept=$file
done

newest="" why="There is no sweep of ${datasets//,/ or } under outputs/"
for plan in outputs/sweeps/*/plan.jsonl; do
    [ -e "$plan" ] && grep -qE "\"points/(${datasets//,/|})/" "$plan" || continue
    if [ -z "$newest" ] || [ "$plan" -nt "$newest" ]; then newest=$plan; fi
done
if [ -n "$newest" ] && grep -q "^contests:" "conf/paper/$paper.yaml"; then
    # A sweep of something else puts no claim to the test: then the kept table says more.
    table=$("$diffq" report "paper=$paper")
    claims=$(grep -v "^- " <<<"$table" || true) # no pipe into grep -q, which ends before it has read all of it
    if grep -qE "held|did not hold|undecided" <<<"$claims"; then
        "$diffq" report "paper=$paper" # once more: what is held back does not know how wide the terminal is
        [ -z "$kept" ] || printf '\nWhat longer trainings gave: %s\n' "$kept"
        exit 0
    fi
    why="No sweep under outputs/ puts a claim on ${datasets//,/ or } to the test"
elif [ -n "$newest" ]; then
    echo "Measured in $(dirname "$newest"), the newest sweep of $datasets here:"
    exec "$diffq" report "$(dirname "$newest")" "paper=$paper"
fi
if [ -z "$kept" ]; then
    echo "Nothing has been measured on ${datasets//,/ or } yet: docs/reproduce.md says how." >&2
    exit 1
fi
echo "$why; this is $kept (to measure it here: docs/reproduce.md)."
echo
python=.venv/bin/python
[ -x "$python" ] || python=python3
"$python" -c "import diffq" 2>/dev/null || exec cat "$kept"
exec "$python" scripts/show_tables.py "$kept"
