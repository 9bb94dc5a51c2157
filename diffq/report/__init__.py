"""Frontiers, plots and tables, from what the store holds."""
