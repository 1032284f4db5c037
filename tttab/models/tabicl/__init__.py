"""TabICL behind the contracts: its files, tabicl's own preprocessing, training and prediction.

Only this package and pretraining import tabicl.
"""
