"""The algorithms that turn noise into text, one file a family."""
