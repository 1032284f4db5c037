"""Pre-training of the bundled checkpoints: synthetic tables in, a file that tabpfn loads out.

Start at `loop.train`; `settings` holds every number. What does not belong here: real tables, and
anything of the terminal.
"""
