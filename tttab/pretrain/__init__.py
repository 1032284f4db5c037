"""Pre-training of the included checkpoints: synthetic tables in, a file that tabpfn loads out.

Start at `loop.train`; `settings` holds every number. No real table is read here.
"""
