"""Frontiers, plots and tables. Reads what the store holds; knows no network, no sampler and no metric."""
