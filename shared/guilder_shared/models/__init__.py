"""Registered models: a study names one, and never carries one."""
