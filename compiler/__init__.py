"""The driver: command line, recipe, pipeline, search, emitters."""
