#!/usr/bin/env bash
# SEDD, MDLM and their causal twin on WikiText-2 within a budget: scripts/reproduce_sedd.sh BUDGET_MINUTES [--outputs DIR]
# Call it again to go on. The text is found under $DIFFQ_DATA, or on the hub.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" scripts/reproduce_sedd.py "$@"
