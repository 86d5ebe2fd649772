"""Distillation to few steps by distribution matching."""
