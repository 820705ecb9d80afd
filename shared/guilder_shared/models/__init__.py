"""Registered models: a study names one, and never carries one."""

"""Models a study may name: public shapes, starting values and torch modules."""
