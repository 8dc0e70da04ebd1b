"""What the scripts share: annotations, stores, losses, metrics, runs and the simulator."""
