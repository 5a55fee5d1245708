"""What a user can ask for, one function each: typed arguments in, events or data out."""
