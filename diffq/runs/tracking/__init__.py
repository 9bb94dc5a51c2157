"""Where runs are logged beside their folders: nowhere, or Weights & Biases.

    a verb ──names a folder──▶ mailbox ──▶ worker, a process of its own ──▶ wandb

A verb never calls the tracker's client and never waits for it: it leaves the name of a folder that is worth logging,
and a process of the lowest priority mirrors what the folder holds. What that process does not get done is still in the
mailbox when the next command starts one. So nothing is slowed, nothing is lost, and nothing fails with the network.
"""

from diffq.runs.tracking.tracker import NoTracker, Tracker, open_tracker

__all__ = ["NoTracker", "Tracker", "open_tracker"]
