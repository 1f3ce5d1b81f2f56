"""What a run starts from: the recipe, what it asks for, and the model that it names, with what that says of itself."""
