"""The two papers as executable mathematics: limits, exact laws and simulations.

What does not belong here: anything about TabPFN, tables or the terminal.
"""
