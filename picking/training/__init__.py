"""What both pipelines train with: loop, losses, augmentation, networks, scoring."""
