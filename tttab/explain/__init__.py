"""Why a bundle predicts what it predicts: Shapley values, permutation importance, partial dependence."""
