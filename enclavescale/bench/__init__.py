"""What `enclavescale bench` measures."""
