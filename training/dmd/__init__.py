"""Distillation to a few steps by distribution matching."""
