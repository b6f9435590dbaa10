"""A mask: from raw values on a grid to pixels, and over an image."""
