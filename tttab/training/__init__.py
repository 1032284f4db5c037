"""Test-time training: the loop, and what it is made of. Read `loop` first."""
