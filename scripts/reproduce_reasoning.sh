#!/usr/bin/env bash
# Orders of decoding against Metropolis–Hastings within a budget: scripts/reproduce_reasoning.sh BUDGET_MINUTES
#     [--outputs DIR] [--results DIR]; call it again to go on.
# On a CPU: sudoku and countdown, and the planning files below $DIFFQ_DATA/planning. On a GPU besides: GSM8K by a model
# of 160M parameters.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" scripts/reproduce_reasoning.py "$@"
