"""A real network under the linear theory's question: cold against warm start on a table, over k.

This is the only part of `tttab.theory` that knows models, tables and the training loop, all through their
contracts.
"""
