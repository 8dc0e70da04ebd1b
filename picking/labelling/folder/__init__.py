"""The folder of labels: every action with its time, and the files that follow from them."""
