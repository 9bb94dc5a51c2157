"""The mathematics: schedules, forward processes, losses, contracts. No networks."""
