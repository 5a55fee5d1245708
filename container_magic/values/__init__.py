"""Variables on their way into a container (pickled, the user's own) and out of one (data in a checked form)."""
