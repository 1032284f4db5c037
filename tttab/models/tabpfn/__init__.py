"""TabPFN behind the contracts: reading its files, its own preprocessing, training and serving.

The only part of tttab, besides pretraining, that imports tabpfn. What does not belong here: other families.
"""
