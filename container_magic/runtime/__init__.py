"""The life of containers: supervisor, state directories, and the client that talks to them."""
