"""From a recipe to a plan: everything it names is loaded, checked and resolved, and nothing is written."""
