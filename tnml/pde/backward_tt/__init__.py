"""Solving equations by regression with functional tensor trains, without gradient descent."""
