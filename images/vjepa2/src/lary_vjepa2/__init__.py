"""V-JEPA 2 as a clip encoder."""
