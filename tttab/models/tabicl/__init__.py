"""TabICL behind the contracts: its files, tabicl's own preprocessing, training and serving.

The only part of tttab, besides pretraining, that imports tabicl. What does not belong here: other families.
"""
