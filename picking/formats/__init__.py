"""Files of coordinates and annotations, and typed records of what is in them."""
