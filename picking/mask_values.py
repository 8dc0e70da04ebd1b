"""What a pixel of a mask is; pixels of value `IGNORE` take part in no loss and no metric."""

BACKGROUND, PARTICLE, IGNORE = 0, 1, 255
