"""Programs that nobody has read, run where they can do little: without network, without a disk that can be written,
with limits on time, memory, processes and output.

    box = Sandbox.find(limits)                   # UserError where there is none
    endings = box.run_all(["assert 1 + 1 == 2", "while True: pass"])

It protects from accidents, and from no more (docs/execution.md). Knows no task and no metric.
"""

from diffq.sandbox.box import Sandbox
from diffq.sandbox.limits import Ended, Ending, Limits

__all__ = ["Ended", "Ending", "Limits", "Sandbox"]
