"""A real network under the linear theory's question: cold against warm start on a table, over k.

The only room of `tttab.theory` that knows models, tables and the training loop, all through their contracts.
What does not belong here: any law (`linear_attention`), any family of models.
"""
