"""Losses: pure functions of a velocity, each with an analytic test."""
