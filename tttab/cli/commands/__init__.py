"""One module per command: its options, the library call behind it, and how the result is printed."""
