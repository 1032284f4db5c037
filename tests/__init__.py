"""The tests: they lie where what they test lies; `support` holds the stand-ins they share."""
