"""TabPFN behind the contracts: reading its files, its own preprocessing, training and prediction.

Only this package and pretraining import tabpfn.
"""
