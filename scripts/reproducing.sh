# What the shell of reproduce_NAME.sh has in common, read by each with `source`: without a budget it says what stands at
# the head of that script; else it runs reproduce_NAME.py by PYTHON, by .venv's interpreter, or by python3.
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,/^[^#]/s/^# //p' "scripts/$(basename "$0")" >&2; exit 2; }
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
exec "$python" "scripts/$(basename "$0" .sh).py" "$@"
