"""`diffq sweep --plan`: what is done of a sweep, and what the rest costs. Starts and writes nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from diffq.config import Request
from diffq.runs.grid import expand


def run(request: Request) -> int:
    """Prints the plan of the grid. Returns 0, or 1 where the sweep would stop or a point is bound to fail."""
    grid = expand(request.overrides, config_dirs=request.config_dirs)
    from diffq.runs.planned import sweep_name
    from diffq.runs.planning.plan import Planner
    from diffq.runs.planning.table import as_json, print_plan
    from diffq.runs.planning.telling import tell_apart
    from diffq.store import Store

    plan = Planner(request).plan(grid, sweep_name(grid))
    plan = dataclasses.replace(plan, power=tell_apart(Store(Path(grid[0].config.outputs)), plan.points))
    if request.json:
        print(json.dumps(as_json(plan), indent=1, ensure_ascii=False))
    else:
        print_plan(plan)
    return 1 if plan.stops or any(p.state == "fails" for p in plan.points) else 0
