"""Multiinformation (total correlation) of columns, and its split within and between groups."""
