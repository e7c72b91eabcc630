"""Matrix product states on patches of an image, and stacks of them."""
