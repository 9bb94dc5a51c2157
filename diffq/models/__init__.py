"""The networks, one file a family, and checkpoints."""
