"""What is asked and what counts as right: tasks, tokenizers, canvases, and the embedded worlds."""
