"""Reinforcement learning of a flow model by its pictures' rewards."""
