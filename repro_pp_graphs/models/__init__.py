"""config.json files of the shapes that dummy weights stand for."""
