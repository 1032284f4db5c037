"""One table, one split, several methods. Read `arms` first."""
