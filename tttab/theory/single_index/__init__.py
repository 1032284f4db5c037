"""Single-index models under softmax attention, trained at test time in three stages (arXiv 2509.25741).

What does not belong here: linear attention, trained transformers.
"""
