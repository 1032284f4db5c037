"""The two papers as executable mathematics: limits, exact laws and simulations, each command an experiment.

It depends on torch and the core only; nothing here knows TabPFN, tables or the terminal, except `network`.
"""
