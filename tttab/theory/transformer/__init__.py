"""Small trained transformers under the experiments of both papers: in context against trained at test time.

`store` finds or makes the checkpoint, `adapt` trains at test time, `paper_a` and `paper_b` are the grids.
"""
