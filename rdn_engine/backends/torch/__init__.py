"""Torch as a backend: a graph as a program of torch operators."""
