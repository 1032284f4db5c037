"""Single-index models under softmax attention, trained at test time in three stages (arXiv 2509.25741).

Start at `algorithm`; `stages` holds the stages, `tasks` the data, and most other modules are experiments.
"""
