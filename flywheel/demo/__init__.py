"""The embedded demo: a generated world and its held-out prompt suite."""
