"""`python -m tttab`: the same as the `tttab` command."""

from tttab.cli import main

if __name__ == "__main__":
    main()
