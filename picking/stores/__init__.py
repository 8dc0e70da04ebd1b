"""What is trained on: patch and segmentation stores, written once and read memory-mapped."""
