"""Benchmarks, side by side with whichever of bwrap, runc, podman, docker are installed: ``python -m benchmarks``."""
