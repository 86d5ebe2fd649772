"""Reinforcement learning of a flow model from rewards of its pictures."""
