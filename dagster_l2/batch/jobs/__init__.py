"""Jobs: one run over many windows, by workers that may die, with a manifest for every step.

Entered through ``batch``; what is fetched is a `Source`, how files count is the lake's.
"""
