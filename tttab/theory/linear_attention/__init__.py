"""One-layer linear attention and one step of test-time training (arXiv 2503.11842), at every size.

What does not belong here: single-index models, trained transformers.
"""
