"""The processes of a container: boot, zygote, init, payload, and the messages between them."""
