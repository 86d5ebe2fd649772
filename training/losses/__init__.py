"""Losses: pure functions, each with an analytic test."""
