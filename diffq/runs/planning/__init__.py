"""What a point will cost, from its settings: calls counted by a dry run, time by a model fitted to finished points."""
