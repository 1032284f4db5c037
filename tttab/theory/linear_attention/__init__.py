"""One-layer linear attention and one step of test-time training (arXiv 2503.11842), at every size.

`law` and `isotropic` hold the exact losses, `limit` the papers', `samplers` and `measure` the simulation. The
experiments put the three side by side.
"""
