"""The rooms composed: from settings to open doors, and each step of the pipeline for all who wait for it.

It knows the rooms and the settings; it knows neither Dagster nor how a command or page says what was done.
"""
