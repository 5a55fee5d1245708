"""The companion kernel: a launcher that Jupyter starts, and a relay between its clients and a kernel inside."""
