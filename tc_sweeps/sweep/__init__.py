"""Sweeps: composing and validating jobs, and training a whole multirun as stacks.

Imports nothing by itself: Hydra imports the launcher and the sweeper in every app of an environment.
"""
