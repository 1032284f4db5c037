"""Small trained transformers under the experiments of both papers: in context against trained at test time.

What does not belong here: the one-layer models of the theorems (`linear_attention`, `single_index`).
"""
